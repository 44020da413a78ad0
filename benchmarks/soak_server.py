"""A separate project with two registered versions of a classifier, and `tailorset serve` as a process."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import mlflow
import numpy as np
import psutil
import torch
from safetensors.torch import load_file, save_file
from tiny_backbone import write_backbone

import tailorset
from tailorset.classifiers import load_classifier
from tailorset.images.codec import encode_png
from tailorset.plugins import load_plugin
from tailorset.project.layout import FITTED_TO
from tailorset.project.tracking import connect
from tailorset.records import LabelSpace
from tailorset.registry.version import FILES, log_model
from tailorset.storage import checksums
from tailorset.storage.shards import write_shard
from tailorset.thresholds.novelty import fit_novelty
from tailorset.thresholds.rules import one_threshold

NAME, ALIAS = "soaked", "champion"
URI = f"models:/{NAME}@{ALIAS}"
ROOT = Path(__file__).resolve().parents[1]


def build_project(root: Path, models: Path) -> None:
    """A registry in `root` with two versions: the classifier in `models`, or a tiny one, and a changed copy of it."""
    target = root / "models"
    if (models / "classifier").is_dir():
        target.mkdir(parents=True)
        shutil.copytree(models / "classifier", target / "classifier")
    else:
        _tiny_classifier(target)
    for name in FILES[1:]:  # all but the classifier
        source = models / name
        if source.is_dir():
            shutil.copytree(source, target / name)
        elif source.exists():
            shutil.copy(source, target)
        else:
            _stand_in(target / name, target / "classifier")
    write_shard(root / "data/real/shards/test-0.tar", [("a", encode_png(np.full((9, 7, 3), 200, np.uint8)))])
    with contextlib.chdir(root):
        _register(root, load_classifier("models/classifier").label_space)
        point_to(root, "1")


def point_to(root: Path, version: str) -> None:
    """Move the alias."""
    with contextlib.chdir(root):
        connect(root)[0].set_registered_model_alias(NAME, ALIAS, version)


def expected_scores(root: Path, photos: list[bytes]) -> dict[str, list[dict[str, float]]]:
    """version -> scores by label for each photo, computed here."""
    with contextlib.chdir(root):
        models = {version: tailorset.load(f"models:/{NAME}/{version}") for version in ("1", "2")}
    return {version: model.predict(photos, "score").to_dict("records") for version, model in models.items()}


class Server:
    """`tailorset serve` in `root`, on a free port of this machine; killed at the end if it is still running."""

    def __init__(self, root: Path, *options: str) -> None:
        command = [sys.executable, "-m", "tailorset.cli", "serve", "--model", URI, "--port", "0", *options]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        self.process = subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)
        self.log: list[str] = []
        self.url = self._address()
        threading.Thread(target=self._drain, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def resident_bytes(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def _address(self) -> str:
        for line in self._lines():
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                return found[0]
        raise RuntimeError("tailorset serve did not start:\n" + "".join(self.log))

    def _lines(self) -> Iterator[str]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            yield line

    def _drain(self) -> None:
        for _ in self._lines():
            pass


def _register(root: Path, space: LabelSpace) -> None:
    mlflow.set_experiment(experiment_id=connect(root)[1])
    with mlflow.start_run():
        log_model(NAME, space.names)
    weights = Path("models/classifier/classifier.safetensors")
    tensors = load_file(weights)
    tensors["text_features"] = tensors["text_features"].flip(1)  # the meaning of the labels is exchanged
    save_file(tensors, weights)
    checksums.seal(weights.parent)
    checksums.bind(weights.parent, FITTED_TO)
    with mlflow.start_run():
        log_model(NAME, space.names)


def _tiny_classifier(target: Path) -> None:
    labels = [{"name": name, "seen": name != "fish"} for name in ("fish", "ball", "hat")]
    space = LabelSpace.model_validate({"name": "tiny", "labels": labels})
    plugin = load_plugin("classifiers", "dual_prompt")
    config = plugin.Config(backbone={"model": write_backbone(target / "backbone", "resnet")}, num_context_tokens=2)
    plugin.build(config, space, torch.device("cpu")).save(target / "classifier")


def _stand_in(path: Path, classifier: Path) -> None:
    """Files of a version, for a classifier that was never measured."""
    if path.name == "thresholds.json":
        one_threshold(load_classifier(classifier).labels).save(path)
    elif path.name == "novelty.safetensors":
        model = load_classifier(classifier)
        features = model.look(torch.rand(20, 3, model.image_px, model.image_px))[1].detach()
        fit_novelty(features, features).save(path)
    elif path.name == "fitted_to.sha256":
        checksums.bind(classifier, path)
    elif path.name == "examples":
        path.mkdir()
        (path / "0.png").write_bytes(encode_png(np.full((30, 40, 3), 90, np.uint8)))
    else:
        path.write_text("{}\n", encoding="utf-8")
