"""Registers the evaluated classifier as a new version of the model and points the alias `challenger` at it.

A point of a sweep, which DVC runs in a copy of the project, leaves `challenger` alone: that is what is in the project.
The alias `champion` is moved by `tailorset promote` only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
import pandas as pd
import torch
from torch import Tensor

import tailorset
from tailorset.evaluation.bootstrap import draw_resamples
from tailorset.evaluation.score_table import read_scores
from tailorset.evaluation.selection import training_notes
from tailorset.images.codec import encode_png
from tailorset.inference.mlflow_model import IMAGE, signature
from tailorset.inference.versions import CHALLENGER, TRAINING
from tailorset.project.execution import git_revision
from tailorset.project.layout import (
    CLASSIFIER,
    EXAMPLES,
    MEASURED,
    MODEL_CARD,
    NOVELTY,
    REAL,
    REPORTS,
    SCORES,
    THRESHOLDS,
)
from tailorset.project.params import flatten, read_yaml
from tailorset.project.stage import Stage, all_metrics, run_stage
from tailorset.project.versions import CONTENT, content_here
from tailorset.records import LabelSpace
from tailorset.registry.measurement import Measurement, measure, val_tags, with_val
from tailorset.registry.model_card import OURS, RAW_CLIP, CardFacts, measure_figures, model_card
from tailorset.registry.parent_run import data_sets, description, headline
from tailorset.storage.files import atomic_output
from tailorset.storage.image_set import AnnotatedRows, real_rows
from tailorset.storage.location import shards_of
from tailorset.storage.shards import load_images, read_shard
from tailorset.thresholds.rules import Thresholds

PACKAGE = Path(tailorset.__file__).parent
NUM_EXAMPLES = 4
DATA_CARD = REPORTS / "card" / "index.html"
REQUIREMENTS = (  # of loading a version and of its answers; tests/serving/test_requirements.py compares
    "huggingface-hub",
    "mlflow",
    "numpy",
    "open-clip-torch",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "torch",
    "torchvision",
    "tqdm",
)


def main() -> None:
    with run_stage("register_model") as stage:
        weights_bytes = sum(file.stat().st_size for file in CLASSIFIER.iterdir())
        num_labels = len(stage.label_space.names)
        stage.save_metrics({"register/num_labels": num_labels, "register/weights_bytes": weights_bytes})
        test = real_rows(REAL, "test", stage.label_space)
        clip, ours = (test_scores(stage, method, test) for method in ("clip", "ours"))
        measured = with_val(
            measure(ours, clip, test, stage.label_space),
            real_rows(REAL, "val", stage.label_space),
            stage.label_space,
            all_metrics(),
        )
        with atomic_output(MEASURED) as path:
            measured.save(path)
        with atomic_output(EXAMPLES) as path:
            write_examples(test, path)
        with atomic_output(MODEL_CARD) as path:
            path.write_text(model_card(card_facts(stage, {RAW_CLIP: clip, OURS: ours}, test[1])), encoding="utf-8")
        with stage.tracker.noted([f"a version of {stage.params.model_name}"]):
            stage.tracker.summarise(flatten(read_yaml("params.yaml")), all_metrics())
            if stage.tracker.is_up:
                present(stage, register(stage, measured))


def test_scores(stage: Stage, method: str, test: AnnotatedRows) -> Tensor:
    """(N, L) of the test photographs, as `evaluate` stored them."""
    return read_scores(SCORES, method, test[0]["image_id"], stage.label_space.names)


def card_facts(stage: Stage, scores: dict[str, Tensor], targets: Tensor) -> CardFacts:
    """scores: (N, L) by the names of the card's rows."""
    params, space, k = stage.params, stage.label_space, stage.params.evaluate.top_k[0]
    resamples = draw_resamples(1, len(targets), params.data_card.num_resamples, params.seed)
    figures = {row: measure_figures(matrix, targets, space, resamples, k) for row, matrix in scores.items()}
    return CardFacts(params, space, Thresholds.load(THRESHOLDS), all_metrics(), figures, len(targets))


def write_examples(test: AnnotatedRows, folder: Path) -> None:
    """Test photos for the page to try: few that show many labels, as PNG files."""
    rows, targets = test
    shown, covered, chosen = targets == 1, torch.zeros(targets.shape[1], dtype=torch.bool), []
    for _ in range(min(NUM_EXAMPLES, len(rows))):
        gains = (shown & ~covered).sum(1)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        covered |= shown[chosen[-1]]
    folder.mkdir()
    for number, (_, image) in enumerate(load_images(rows.iloc[chosen], REAL)):
        (folder / f"{number}.png").write_bytes(encode_png(np.asarray(image)))


def register(stage: Stage, measured: Measurement) -> str:
    """Log the model with the stage's run, register it, tag the version, move the alias to it; return its address."""
    name = stage.params.model_name
    with mlflow.start_run(run_id=stage.tracker.run_id):
        number = log_model(name, stage.label_space)
    client = mlflow.MlflowClient()
    for key, value in (lineage() | val_tags(measured)).items():
        client.set_model_version_tag(name, number, key, value)
    if stage.root != Path.cwd().resolve():
        print(f"Registered {name} version {number}: a point of a sweep, {CHALLENGER} stays what it was")
        return f"models:/{name}/{number}"
    client.set_registered_model_alias(name, CHALLENGER, number)
    print(f"Registered {name} version {number}: models:/{name}@{CHALLENGER}")
    return f"models:/{name}/{number}"


def present(stage: Stage, model: str) -> None:
    """Show results, data and model on the parent run of this execution."""
    metrics = all_metrics()
    files = [path for path in (MODEL_CARD, DATA_CARD) if path.exists()]
    stage.tracker.present(description(metrics, model), headline(metrics), data_sets(Path("dvc.lock")), files)


def log_model(name: str, label_space: LabelSpace) -> str:
    """Log the model as code, with all that belongs to it and with this package; the number of the new version."""
    with TemporaryDirectory() as folder:
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(PACKAGE / "serving" / "model.py"),
            artifacts=without_links((CLASSIFIER, THRESHOLDS, NOVELTY, EXAMPLES, MEASURED, MODEL_CARD), Path(folder)),
            code_paths=[str(PACKAGE)],
            signature=signature(label_space.names),
            input_example=pd.DataFrame({IMAGE: [example_image()]}),
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
            registered_model_name=name,
        )
    return str(info.registered_model_version)


def without_links(paths: Sequence[Path], folder: Path) -> dict[str, str]:
    """{name: copy in the folder} of files and folders: DVC's may be links into its cache, which MLflow refuses."""
    for path in paths:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(path, folder / path.name)
    return {path.name: str(folder / path.name) for path in paths}


def example_image() -> bytes:
    """The first image of the test split, as the example of an input."""
    shard = min(shards_of(REAL).glob("test-*.tar"))
    return next(iter(read_shard(shard)))[1]


def lineage() -> dict[str, str]:
    """What a version was made from: commit, settings, and every product's hash in dvc.lock."""
    commit, dirty = git_revision()
    tags = {
        "git.commit": commit,
        "git.dirty": str(dirty).lower(),
        "dvc.lock.sha256": hashlib.sha256(Path("dvc.lock").read_bytes()).hexdigest(),
        CONTENT: content_here(),
        "params.sha256": hashlib.sha256(Path("params.yaml").read_bytes()).hexdigest(),
    }
    experiment = os.environ.get("DVC_EXP_NAME")
    notes = training_notes(all_metrics())
    return (
        tags | ({"dvc.experiment": experiment} if experiment else {}) | ({TRAINING: " ".join(notes)} if notes else {})
    )


if __name__ == "__main__":
    main()
