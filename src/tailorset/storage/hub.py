"""Models by name: a local folder, or a repository of the Hugging Face hub at a revision; and what is known of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

LOCAL, HUB = "local-dir:", "hf-hub:"  # open_clip's prefixes
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
NOT_STATED = "not stated"
OWN_MODELS = Path("models/foundation/toybox")
KNOWN = Path(__file__).with_name("hub_models.yaml")


class NamedModel(BaseModel):
    """model: a folder or a hub id. revision: a commit or tag of the hub; None = the latest one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    model: str = Field(min_length=1)
    revision: str | None = Field(default=None, min_length=1)

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
        local = self.model.startswith(LOCAL) or not HUB_ID.fullmatch(self.model.removeprefix(HUB))
        folder = Path(self.model.removeprefix(LOCAL))
        return folder if local or folder.is_dir() else None

    @property
    def repository(self) -> str | None:
        """OWNER/NAME on the hub, if it comes from there."""
        return None if self.folder else self.model.removeprefix(HUB)

    @property
    def title(self) -> str:
        """Name of the model for people."""
        return self.model

    @property
    def needed_files(self) -> tuple[str, ...]:
        """Patterns, each of a file that its repository must hold."""
        return ("*.safetensors",)


def lacking(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The patterns that no name matches."""
    names = list(names)
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]


class Departure(BaseModel):
    """A repository that left the hub; successor: a repository of the same weights, if one is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    since: str
    successor: str | None


class KnownModels(BaseModel):
    """The table in hub_models.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    left: dict[str, Departure]
    families: dict[str, tuple[str, ...]]
    licences: dict[str, str]


@cache
def known_models() -> KnownModels:
    """The table of models that left the hub, of licences by family, and of the licences' names in words."""
    return KnownModels.model_validate(yaml.safe_load(KNOWN.read_text(encoding="utf-8")))


def departure(repository: str) -> str:
    """Note on a repository that left the hub, with its successor; "" if it is not known to have left."""
    gone = known_models().left.get(repository)
    if gone is None:
        return ""
    instead = f"name {gone.successor}, the same weights" if gone.successor else "no mirror is known, name another model"
    return f"it left the hub in {gone.since}: {instead}"


class Origin(NamedTuple):
    """Origin of a model, in words; `role` is its key in params.yaml."""

    role: str
    title: str
    revision: str
    licence: str


def origin(role: str, model: NamedModel) -> Origin:
    """Read from the model as it is on this machine; nothing is guessed."""
    if model.folder:
        revision = "local folder"
    elif model.revision:
        revision = f"{model.revision} (pinned)"
    else:
        commit = model.repository and cached_commit(model.repository, None)
        revision = f"{commit} (the latest)" if commit else NOT_STATED
    return Origin(role, model.title, revision, licence(model))


def licence(model: NamedModel) -> str:
    """As the metadata of the model's own README.md says, else its family's; "not stated" without either."""
    from huggingface_hub import ModelCard, hf_hub_download

    try:
        if model.folder:
            readme = model.folder / "README.md"
        else:
            readme = Path(hf_hub_download(model.repository or "", "README.md", revision=model.revision))
        data = ModelCard.load(readme).data
    except (OSError, ValueError, yaml.YAMLError):
        return family_licence(model.repository)
    return data.license_name or data.license or family_licence(model.repository)


def licence_in_words(model: NamedModel) -> str:
    """Return the licence by its usual name; "not stated" if it is not known."""
    if model.folder and model.folder.is_relative_to(OWN_MODELS):
        return "Apache-2.0, part of tailorset"
    stated = licence(model)
    return known_models().licences.get(stated, stated)


def family_licence(repository: str | None) -> str:
    """The licence of all repositories of this name, whoever owns them."""
    name = (repository or "").rpartition("/")[2]
    families = known_models().families.items()
    return next((known for known, names in families if any(fnmatchcase(name, one) for one in names)), NOT_STATED)


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
