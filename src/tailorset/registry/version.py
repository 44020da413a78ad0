"""A version of the registered model: logged as code with everything that belongs to it, tagged with what made it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import mlflow
import pandas as pd

import tailorset
from tailorset.evaluation.selection import training_notes
from tailorset.inference.mlflow_model import IMAGE, signature
from tailorset.inference.versions import CHALLENGER, TRAINING
from tailorset.project.execution import git_revision
from tailorset.project.layout import (
    CLASSIFIER,
    EXAMPLES,
    FITTED_TO,
    MEASURED,
    MODEL_CARD,
    MODELS,
    NOVELTY,
    REAL,
    THRESHOLDS,
)
from tailorset.project.versions import CONTENT, content_here
from tailorset.records import LabelSpace
from tailorset.registry.measurement import Measurement, val_tags
from tailorset.registry.parent_run import our_measures
from tailorset.registry.promotion import label_difference
from tailorset.storage.checksums import check_bound
from tailorset.storage.location import shards_of
from tailorset.storage.shards import read_shard
from tailorset.thresholds.rules import Thresholds

PACKAGE = Path(tailorset.__file__).parent
OF_VERSION = (CLASSIFIER, THRESHOLDS, NOVELTY, FITTED_TO, EXAMPLES, MEASURED, MODEL_CARD)
FILES = tuple(path.name for path in OF_VERSION)
REQUIREMENTS = (  # to load a version and let it answer; tests/inference/test_requirements.py compares
    "huggingface-hub",
    "mlflow",
    "numpy",
    "open-clip-torch",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "safetensors",
    "timm",
    "torch",
    "torchvision",
)
MAX_DESCRIPTION = 5000  # characters, of MLflow's schema
NOTHING: Mapping[str, Any] = MappingProxyType({})


def check_made_for(label_space: LabelSpace, thresholds: Thresholds) -> None:
    """Check that the classifier in models/, known by its thresholds, is of the labels in params.yaml.

    Raises:
        ValueError: it was trained for other labels.
    """
    if difference := label_difference(thresholds.labels, label_space.names):
        raise ValueError(
            f"{CLASSIFIER} is not of the labels of {label_space.name} in params.yaml: {difference}."
            " `make run` trains one; this stage alone only registers what is there"
        )


def register(
    name: str,
    run_id: str | None,
    labels: Sequence[str],
    measured: Measurement,
    metrics: Mapping[str, float],
    folder: Path = MODELS,
    tags: Mapping[str, str] = NOTHING,
) -> str:
    """Log the model in a folder with a run, register it as a new version, and tag that; return the version's number.

    metrics: of all stages. tags: next to those of its lineage.
    """
    with mlflow.start_run(run_id=run_id):
        number = log_model(name, labels, folder, metrics)
    client = mlflow.MlflowClient()
    client.update_model_version(name, number, excerpt((folder / MODEL_CARD.name).read_text(encoding="utf-8")))
    for key, value in (lineage(metrics, folder) | val_tags(measured) | dict(tags)).items():
        client.set_model_version_tag(name, number, key, value)
    return number


def make_challenger(name: str, number: str) -> None:
    """Move the alias `challenger` to a version."""
    mlflow.MlflowClient().set_registered_model_alias(name, CHALLENGER, number)


def excerpt(card: str, most: int = MAX_DESCRIPTION) -> str:
    """Return the card, if it is too long without its longest sections, which the last line names."""
    intro, *sections = card.split("\n## ")
    left_out: list[str] = []
    while True:
        note = f"\n\nThe whole card, with {', '.join(left_out)}: {MODEL_CARD.name} among the files of the model."
        text = "\n## ".join([intro, *sections]).rstrip() + (note if left_out else "")
        if len(text) <= most or not sections:
            return text
        longest = max(sections, key=len)
        sections.remove(longest)
        left_out.append(longest.partition("\n")[0])


def log_model(name: str, labels: Sequence[str], models: Path = MODELS, metrics: Mapping[str, float] = NOTHING) -> str:
    """Log the model as code, with its files and with this package; return the number of the new version.

    metrics: of all stages; those in the short table of results are shown with the model.

    Raises:
        ValueError: the thresholds were fitted to another classifier.
    """
    check_bound(models / CLASSIFIER.name, models / FITTED_TO.name)
    with TemporaryDirectory() as folder:
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(PACKAGE / "inference" / "mlflow_model.py"),
            artifacts=without_links([models / name for name in FILES], Path(folder)),
            code_paths=[str(PACKAGE)],
            signature=signature(labels),
            input_example=pd.DataFrame({IMAGE: [example_image(REAL)]}),
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
            registered_model_name=name,
        )
    if figures := our_measures(metrics):
        mlflow.log_metrics(figures, model_id=info.model_id)
    return str(info.registered_model_version)


def without_links(paths: Sequence[Path], folder: Path) -> dict[str, str]:
    """Copy files and folders into a folder and return {name: copy}: DVC's may be links, which MLflow refuses."""
    for path in paths:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(path, folder / path.name)
    return {path.name: str(folder / path.name) for path in paths}


def example_image(folder: Path) -> bytes:
    """Return the first image of the test split, as the example of an input. folder: of the photos."""
    shard = min(shards_of(folder).glob("test-*.tar"))
    return next(iter(read_shard(shard)))[1]


def lineage(metrics: Mapping[str, float], models: Path = MODELS) -> dict[str, str]:
    """Return tags that tell what a version was made from: commit, settings, and every product's hash in dvc.lock."""
    commit, dirty = git_revision()
    tags = {
        "git.commit": commit,
        "git.dirty": str(dirty).lower(),
        "dvc.lock.sha256": hashlib.sha256(Path("dvc.lock").read_bytes()).hexdigest(),
        CONTENT: content_here(models),
        "params.sha256": hashlib.sha256(Path("params.yaml").read_bytes()).hexdigest(),
    }
    if experiment := os.environ.get("DVC_EXP_NAME"):
        tags["dvc.experiment"] = experiment
    if notes := training_notes(metrics):
        tags[TRAINING] = " ".join(notes)
    return tags
