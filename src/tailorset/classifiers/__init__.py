"""Classifiers: images in, one probability per label out.

A variant is one file with a pydantic `Config` (a TrainingConfig), `build(config, label_space, device)` for training
and `load(folder, device)` for using what it saved.
Shapes: B images of a batch, H x W pixels, L labels, D features, h x w positions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from tailorset.plugins import load_plugin
from tailorset.records import LabelSpace
from tailorset.training.contract import Trainable, TrainingConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "classifier.safetensors"


@runtime_checkable
class Classifier(Trainable, Protocol):
    """An nn.Module on one device; in evaluation mode it needs no text tower and no tokenizer."""

    labels: tuple[str, ...]  # in label-space order, one per score
    label_space: LabelSpace
    image_px: int

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images: (B, 3, H, W) float in [0, 1] -> (B, L) probabilities, and (B, D) features of each whole image."""
        ...

    def describe(self, images: Tensor) -> Tensor:
        """(B, D) features as `look` returns them, without the cost of scores."""
        ...

    def spatial_maps(self, images: Tensor) -> Tensor:
        """(B, L, h, w): where each label is seen, each map summing to 1."""
        ...

    def save(self, folder: Path) -> None:
        """Write config.json (with the variant's `name`) and classifier.safetensors: all that `load` needs."""
        ...


class Extension(Trainable, Protocol):
    """A trained classifier with further labels appended: only their parameters are learned."""

    image_px: int

    def grown(self) -> Classifier:
        """Return the classifier of all labels; the scores of the earlier labels are unchanged."""
        ...


def load_classifier(folder: str | Path, device: torch.device | str = "cpu") -> Classifier:
    """Return a saved classifier in evaluation mode, built by the variant that saved it.

    Raises:
        ValueError: the folder does not hold a usable classifier.
    """
    name, _ = saved_labels(folder)
    return cast(Classifier, load_plugin("classifiers", name).load(Path(folder), torch.device(device)))


def saved_labels(folder: str | Path) -> tuple[str, LabelSpace]:
    """Return the variant and the labels of a saved classifier; no weights are read.

    Raises:
        ValueError: the folder does not hold a classifier.
    """
    path = Path(folder) / CONFIG_FILE
    check_file(path)
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return description["name"], LabelSpace.model_validate(description["label_space"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        from tailorset.storage.products import unusable

        raise ValueError(unusable(path, "a classifier's config", error, "train_classifier")) from error


def check_file(path: Path) -> None:
    """Check that a file of a saved classifier exists.

    Raises:
        ValueError: the file is missing.
    """
    if not path.is_file():
        raise ValueError(
            f"{path.parent} has no {path.name}, so it is not a trained classifier: name another folder;"
            " `dvc checkout` restores models/classifier of a project, `dvc repro train_classifier` makes it"
        )


def extend_classifier(config: TrainingConfig, folder: Path, label_space: LabelSpace, device: torch.device) -> Extension:
    """Return a saved classifier that learns the labels behind its own in `label_space`.

    config: training settings of the variant that saved the classifier; the variant must have `extend`.

    Raises:
        ValueError: the folder is not usable.
    """
    name, _ = saved_labels(folder)
    return cast(Extension, load_plugin("classifiers", name).extend(config, folder, label_space, device))


def check_labels(classifier: Classifier, labels: Sequence[str]) -> None:
    """Check that a classifier's labels are these, in this order: scores and targets are compared by column.

    Raises:
        ValueError: it has other labels, or another order.
    """
    if classifier.labels != tuple(labels):
        raise ValueError(
            f"the classifier's labels are {classifier.labels}, the label space's {tuple(labels)}: train it again"
        )
