"""Models by name: a local folder, or a repository of the Hugging Face hub at a revision; and what is known of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from yaml import YAMLError

LOCAL, HUB = "local-dir:", "hf-hub:"  # open_clip's prefixes
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
NOT_STATED = "not stated"


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
        """Where the model lies, or should lie, if it is a local one."""
        local = self.model.startswith(LOCAL) or not HUB_ID.fullmatch(self.model.removeprefix(HUB))
        folder = Path(self.model.removeprefix(LOCAL))
        return folder if local or folder.is_dir() else None

    @property
    def repository(self) -> str | None:
        """OWNER/NAME on the hub, if it comes from there."""
        return None if self.folder else self.model.removeprefix(HUB)

    @property
    def title(self) -> str:
        """What to call it."""
        return self.model


class Origin(NamedTuple):
    """Where a model comes from, in words; `role` is its key in params.yaml."""

    role: str
    title: str
    revision: str
    licence: str


def origin(role: str, model: NamedModel) -> Origin:
    """Of the model as it lies on this machine; nothing is guessed."""
    if model.folder:
        revision = "local folder"
    elif model.revision:
        revision = f"{model.revision} (pinned)"
    else:
        commit = model.repository and cached_commit(model.repository, None)
        revision = f"{commit} (the latest)" if commit else NOT_STATED
    return Origin(role, model.title, revision, licence(model))


def licence(model: NamedModel) -> str:
    """As the metadata of the model's own README.md says; "not stated" without one, or where it is silent."""
    from huggingface_hub import ModelCard, hf_hub_download

    try:
        if model.folder:
            readme = model.folder / "README.md"
        else:
            readme = Path(hf_hub_download(model.repository or "", "README.md", revision=model.revision))
        data = ModelCard.load(readme).data
    except (OSError, ValueError, YAMLError):
        return NOT_STATED
    return data.license_name or data.license or NOT_STATED


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
