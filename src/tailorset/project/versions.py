"""Compare the working tree with the registry: is a version what is in models/, and which versions are there?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from tailorset.project.layout import CLASSIFIER, MODELS, NOVELTY, THRESHOLDS
from tailorset.storage.checksums import digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CONTENT = "content.sha256"  # tag of a version: digest of the files that answer
ADDED = "added.labels"  # tag of a version made by `tailorset add-label`
EARLIER_NAME = "tailorset"  # of all registered models, whatever their labels, before each label file had its own
REGISTER = "dvc repro --force --single-item register_model"


def content_here(folder: Path = MODELS) -> str:
    """Digest of classifier, thresholds and limit of novelty in models/ or another folder; "" before there are any."""
    paths = [folder / path.name for path in (CLASSIFIER, THRESHOLDS, NOVELTY)]
    return digest(*paths) if all(path.exists() for path in paths) else ""


def difference_from_here(client: MlflowClient, version: ModelVersion) -> str:
    """Remedy if a version is not the classifier in models/; "" if it is, or if there is none here.

    A version with added labels is not expected there.
    """
    here = content_here()
    if not here or version.tags.get(CONTENT) == here or version.tags.get(ADDED):
        return ""
    same = [one for one in client.search_model_versions(f"name = '{version.name}'") if one.tags.get(CONTENT) == here]
    if not same:
        return f"version {version.version} is not what is in models/, which is not registered: `{REGISTER}`"
    number = max(int(one.version) for one in same)
    return (
        f"version {version.version} is not what is in models/, which is version {number}:"
        f" `tailorset promote --version {number}`, or `{REGISTER}` makes it the challenger"
    )


def earlier_champion(client: MlflowClient, name: str) -> str:
    """Remedy if only a model of the earlier name is registered; "" if there is none."""
    if name == EARLIER_NAME:
        return ""
    try:
        aliases = client.get_registered_model(EARLIER_NAME).aliases
    except MlflowException:
        return ""
    uri = f"models:/{EARLIER_NAME}@champion"
    if "champion" not in aliases:
        return ""
    return (
        f"{uri} is there, from when one name was for all label files: `--model {uri}` uses it,"
        f" `model_name: {EARLIER_NAME}` in params.yaml goes on with it"
    )
