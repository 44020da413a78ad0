"""The model registry as commands and servers use it: which version a name stands for, and its files."""

from __future__ import annotations

import re
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from tailorset.tracking import registry

URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def find_version(uri: str) -> ModelVersion:
    """The version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` stands for at this moment.

    Raises:
        ValueError: the URI is of another form, there is no registry, or it has no such version.
    """
    match = URI.fullmatch(uri)
    if not match:
        raise ValueError(f"{uri!r} names no registered version: write models:/NAME@ALIAS or models:/NAME/VERSION")
    client = registry(Path.cwd())
    try:
        if match["alias"]:
            return client.get_model_version_by_alias(match["name"], match["alias"])
        return client.get_model_version(match["name"], match["version"])
    except MlflowException as error:
        raise ValueError(
            f"{uri} is not in the registry ({error.error_code}): `tailorset status` shows what is,"
            " `dvc repro --force --single-item register_model` registers a challenger, `tailorset promote` a champion"
        ) from error


def download(version: ModelVersion, folder: Path, path: str = "artifacts") -> Path:
    """Copy a file or folder of a version; in `artifacts` all lies side by side that belongs to the classifier.

    Raises:
        ValueError: it is not where the registry says.
    """
    try:
        return Path(mlflow.artifacts.download_artifacts(f"{uri_of(version)}/{path}", dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise ValueError(f"{path} of {uri_of(version)} cannot be read ({error})") from error


def uri_of(version: ModelVersion) -> str:
    return f"models:/{version.name}/{version.version}"
