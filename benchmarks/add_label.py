"""Add an unseen label to a classifier that was trained without it: `python benchmarks/add_label.py`.

Settings and labels are those of params.yaml. Two projects are made: one trains without the label and adds it, the other
trains all labels together. Both are measured on the same test photos, in average precision of the label and in ZSL mAP.
About twice the time of a run; --folder keeps the projects, and what is finished there is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from torch import Tensor

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.classifiers import load_classifier
from tailorset.commands.adding import Addition
from tailorset.evaluation.comparison import clip_logits
from tailorset.evaluation.metrics import average_precisions
from tailorset.evaluation.results import percent
from tailorset.project.layout import ADDED_MODELS, CLASSIFIER, FILTERED, PARAMS, PREPARED, REAL, SYNTHETIC
from tailorset.project.params import check_params, read_yaml
from tailorset.records import LabelSpace
from tailorset.storage.annotated import Collection
from tailorset.storage.image_set import ImageSet
from tailorset.training.loop import predict

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("src", "pipeline", "models/foundation", "dvc.yaml")
STAGES = (
    "write_prompts",
    "tune_unet",
    "tune_text_encoder",
    "generate_images",
    "filter_images",
    "validate_data",
    "train_classifier",
    "fit_thresholds",
)


@dataclass(frozen=True)
class Project:
    """A folder in which stages run. settings: its params.yaml; labels: the content of its label file."""

    folder: Path
    settings: Mapping[str, Any]
    labels: Mapping[str, Any]

    def prepare(self) -> None:
        """Write settings and labels, and link code and foundation models; commands need a git repository."""
        self.folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "init", "--quiet"], cwd=self.folder, check=True)
        for name in LINKED:
            link(self.folder / name, ROOT / name)
        labels = self.folder / self.settings["label_space"]
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text(yaml.safe_dump(dict(self.labels)))
        (self.folder / PARAMS).write_text(yaml.safe_dump(dict(self.settings)))
        (self.folder / "dvc.lock").write_text("schema: '2.0'\n")

    def use_photos(self, other: Project, label: str) -> None:
        """Use the photos of another project, as if nobody had annotated them for a label."""
        (self.folder / REAL).mkdir(parents=True, exist_ok=True)
        for name in (REAL / "shards", REAL / "manifest.parquet", PREPARED):
            link(self.folder / name, other.folder / name)
        targets = pd.read_parquet(other.folder / REAL / "targets.parquet")
        targets.drop(columns=label).to_parquet(self.folder / REAL / "targets.parquet", index=False)

    def run(self, stage: str, *arguments: str) -> float:
        """Run a script of pipeline/ unless it has run, and return the seconds that it took.

        Raises:
            ValueError: it has run for other settings, labels or arguments.
            RuntimeError: it failed.
        """
        done = self.folder / f"{stage}.seconds"
        asked = json.loads(json.dumps([dict(self.settings), dict(self.labels), arguments]))
        if done.exists():
            ran = json.loads(done.read_text())
            if ran["for"] != asked:
                raise ValueError(f"{self.folder} is of other settings, labels or arguments: name another --folder")
        else:
            start = time.monotonic()
            command = [sys.executable, f"pipeline/{stage}.py", *arguments]
            environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
            if subprocess.run(command, cwd=self.folder, env=environment, check=False).returncode:
                raise RuntimeError(f"{stage} failed in {self.folder}: see above")
            ran = {"seconds": time.monotonic() - start, "for": asked}
            done.write_text(json.dumps(ran))
        return float(ran["seconds"])


def link(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def label_files(labels: Mapping[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of a label file with one label last, and without it."""
    rest = [label for label in labels["labels"] if label["name"] != name]
    last = [label for label in labels["labels"] if label["name"] == name]
    apart = [pair for pair in labels.get("confusable", []) if name not in pair]
    return {**labels, "labels": rest + last}, {**labels, "labels": rest, "confusable": apart}


def compare(label: str, settings: Mapping[str, Any], folder: Path) -> list[list[str]]:
    """Return the rows of the comparison: method, AP of the label, ZSL mAP, minutes; and the largest change last."""
    whole, rest = label_files(read_yaml(ROOT / settings["label_space"]), label)
    anew, grown = Project(folder / "anew", settings, whole), Project(folder / "added", settings, rest)
    for project in (anew, grown):
        project.prepare()
    anew.run("prepare_dataset")
    grown.use_photos(anew, label)
    seconds_anew, seconds_before = (sum(one.run(stage) for stage in STAGES) for one in (anew, grown))
    addition = Addition(names=(label,), model=str(CLASSIFIER))
    seconds_added = grown.run("add_label", addition.model_dump_json())

    space = LabelSpace.model_validate(whole)
    test, clip_scores = test_photos(anew.folder, settings, space)
    before, added, together = (
        scores_of(path, test, space)
        for path in (
            grown.folder / CLASSIFIER,
            grown.folder / ADDED_MODELS / addition.title / CLASSIFIER.name,
            anew.folder / CLASSIFIER,
        )
    )
    rows = [
        ("chance", torch.zeros_like(clip_scores), 0.0),
        ("raw CLIP", clip_scores, 0.0),
        ("added later", added, seconds_added),
        ("trained anew, with all labels", together, seconds_anew),
    ]
    change = (before - added)[:, [name != label for name in space.names]].abs().max()
    table = [[name, *figures(scores, test, space, label), f"{seconds / 60:.1f}"] for name, scores, seconds in rows]
    note = f"largest change of a score of another label {float(change):.1e}; the run before the addition"
    return [*table, [note, "", "", f"{seconds_before / 60:.1f}"]]


def test_photos(folder: Path, settings: Mapping[str, Any], space: LabelSpace) -> tuple[ImageSet, Tensor]:
    """Return the test photos and raw CLIP's scores of them, (N, L)."""
    params = check_params(settings, PARAMS)
    image_px = load_classifier(folder / CLASSIFIER).image_px
    test = Collection(space, folder / REAL, folder / SYNTHETIC, folder / FILTERED).photos("test").load(image_px)
    clip = params.score_baselines.clip.load("cpu")
    return test, clip_logits(clip.logits, test.images, clip.encode_texts(space.names, params.clip.prompt_template))


def scores_of(folder: Path, test: ImageSet, space: LabelSpace) -> Tensor:
    """Return scores (N, L) in the order of `space`, NaN for a label that the classifier lacks."""
    classifier = load_classifier(folder)
    scores = predict(classifier, test.images)
    result = scores.new_full((len(scores), len(space.names)), float("nan"))
    result[:, space.columns(classifier.labels)] = scores
    return result


def figures(scores: Tensor, test: ImageSet, space: LabelSpace, label: str) -> tuple[str, str]:
    """Return average precision of the label, and ZSL mAP, in percent."""
    precisions = average_precisions(scores, test.targets)
    zsl = precisions[space.columns(space.unseen)].nanmean()
    return percent(float(precisions[space.index(label)])), percent(float(zsl))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", help="the unseen label to add; default: the last one of the label file")
    parser.add_argument("--folder", type=Path, help="where to keep both projects; default: a temporary folder")
    options = parser.parse_args()
    settings = read_yaml(PARAMS)
    label = options.label or LabelSpace.load(settings["label_space"]).unseen[-1]
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="add-label-"))).resolve()
    rows = compare(label, settings, folder)
    if options.folder is None:
        shutil.rmtree(folder)
    print(f"{'test photos':32} {f'AP of {label}, %':>18} {'ZSL mAP, %':>12} {'minutes':>9}")
    for name, precision, zsl, minutes in rows:
        print(f"{name:32} {precision:>18} {zsl:>12} {minutes:>9}")


if __name__ == "__main__":
    main()
