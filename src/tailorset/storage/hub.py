"""Models by name: a local folder, or a repository of the Hugging Face hub at a revision."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from tailorset.messages import Strict

LOCAL, HUB = PREFIXES = ("local-dir:", "hf-hub:")  # open_clip's
SAFETENSORS, SHARDED = "*.safetensors", ".index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SINGLE_FILES = (".safetensors", ".gguf", *PICKLES)
HUB_HOSTS = ("huggingface.co", "hf.co")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def _unspaced(name: str) -> str:
    if name != name.strip():
        raise ValueError(f"{name!r}: remove the space at its beginning or end")
    return name


Name = Annotated[str, Field(min_length=1), AfterValidator(_unspaced)]


class NamedModel(Strict):
    """model: a folder or a hub id. revision: a commit or tag of the hub; None = the latest one."""

    takes_prefixes: ClassVar[bool] = False  # those of open_clip, which no other loader knows
    in_full: ClassVar[str] = "its folder, which holds the whole model"  # to name in place of a single file
    model: Name
    revision: Name | None = None

    @field_validator("model")
    @classmethod
    def _can_be_loaded_by_name(cls, model: str) -> str:
        if model.startswith(PREFIXES) and not cls.takes_prefixes:
            prefix, _, name = model.partition(":")
            raise ValueError(f"{model!r}: only CLIPs have the prefix {prefix}:, so write {name}")
        if problem := _address_problem(model):
            raise ValueError(problem)
        if model.lower().endswith(SINGLE_FILES) and not Path(model).is_dir():
            raise ValueError(f"{model!r} is a single file: name {cls.in_full}")
        return model

    @model_validator(mode="after")
    def _only_the_hub_has_revisions(self) -> Self:
        if self.revision and not self.repository:
            raise ValueError(
                f"revision {self.revision!r} of {self.title!r}: only models of the hub have revisions; remove it, or"
                " name a hub id"
            )
        return self

    @property
    def folder(self) -> Path | None:
        """Folder of a local model, whether it exists or not; None for one of the hub."""
        folder = Path(self.model)
        return folder if folder.is_dir() or not HUB_ID.fullmatch(self.model) else None

    @property
    def repository(self) -> str | None:
        """OWNER/NAME on the hub, if it comes from there."""
        return None if self.folder else self.model

    @property
    def title(self) -> str:
        """Name of the model for people."""
        return self.model

    @property
    def needed_files(self) -> tuple[str, ...]:
        """Patterns, each of a file that its repository must hold."""
        return (SAFETENSORS,)

    def lacking_in(self, folder: Path) -> list[str]:
        """Return the files that the model needs and a folder lacks, also the shards that an index of weights lists."""
        found = (path for pattern in self.needed_files for path in folder.glob(pattern) if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in found]
        missing = lacking(self.needed_files, names)
        return missing or (missing_weights(folder) if SAFETENSORS in self.needed_files else [])

    def misfit(self, folder: Path) -> str:
        """Return what is wrong with these settings for the model in a folder, "" if nothing; no weights are loaded."""
        return ""


def _address_problem(model: str) -> str:
    """Return what to write in place of a web address; "" if the name is none."""
    if "://" not in model:
        return ""
    host, path = urlsplit(model).netloc, urlsplit(model).path.strip("/").split("/")
    is_page = host.removeprefix("www.") in HUB_HOSTS and len(path) >= 2
    instead = "/".join(path[:2]) if is_page else "a folder, or a model of the Hugging Face hub as OWNER/NAME"
    return f"{model!r} is a web address: write {instead}"


def lacking(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The patterns that no name matches."""
    names = list(names)
    return [pattern for pattern in patterns if not any(is_read(name, [pattern]) for name in names)]


def is_read(file: str, patterns: Collection[str]) -> bool:
    """Check that a file is one that loading a model reads: in the folder of a pattern, and no variant as *.fp16.*."""
    fits = any(fnmatchcase(file, one) and file.count("/") == one.count("/") for one in patterns)
    return fits and (file in patterns or not _is_variant(file))


def variants(names: Iterable[str]) -> list[str]:
    """Return the files of weights that are variants, as *.fp16.safetensors, which are not read; sorted."""
    return sorted(name for name in names if name.endswith(SAFETENSORS[1:]) and _is_variant(name))


def _is_variant(file: str) -> bool:
    """Some shards have their ending twice: model.safetensors-00001-of-00002.safetensors is no variant."""
    return "." in file.rpartition("/")[2].replace(SAFETENSORS[1:], "")


def pickles(names: Iterable[str]) -> list[str]:
    """Return the files of weights that are pickles, which are never read; sorted."""
    return sorted(name for name in names if name.endswith(PICKLES))


def missing_weights(folder: Path) -> list[str]:
    """Return what a folder lacks of its weights: shards that their index lists, or any safetensors.

    A folder may hold the same weights in two layouts (Mistral's `consolidated`), of which one is enough.
    """
    names = {path.name for path in folder.glob(SAFETENSORS) if path.is_file()}
    indexes = sorted(folder.glob(SAFETENSORS + SHARDED))
    if not indexes or any(index.name.removesuffix(SHARDED) in names for index in indexes):
        return lacking([SAFETENSORS], names)
    return min((_missing_shards(index, names) for index in indexes), key=len)


def _missing_shards(index: Path, names: Collection[str]) -> list[str]:
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted(set(listed).difference(names))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"a readable {index.name}"]


def cached_commit(repository: str, revision: str | None) -> str | None:
    """The commit that a revision (None = the latest) stands for in the hub's cache; None if it is not there."""
    store = cache_of(repository)
    reference = store / "refs" / (revision or "main")
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    return commit if commit and (store / "snapshots" / commit).is_dir() else None


def cache_of(repository: str) -> Path:
    """The folder of a repository in the hub's cache, there or not."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    return Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
