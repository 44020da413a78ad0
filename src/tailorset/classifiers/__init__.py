"""Classifiers: images in, one probability a label out.

A variant is one file with a pydantic `Config` (a TrainingConfig), `build(config, label_space, device)` for training
and `load(folder, device)` for using what it saved. Letters: B batch, H, W pixels, L labels, D features, h, w positions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tailorset.plugins import load_plugin
from tailorset.records import LabelSpace

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "classifier.safetensors"


@runtime_checkable
class Classifier(Protocol):
    """An nn.Module on one device; in evaluation mode it needs no text tower and no tokenizer."""

    labels: tuple[str, ...]  # of the label space, in its order: one a score
    label_space: LabelSpace
    image_px: int

    def __call__(self, images: Tensor, label_indices: Sequence[int] | None = None) -> Tensor:
        """images: (B, 3, H, W) float in [0, 1], any size -> (B, L) probabilities, or the columns of `label_indices`."""
        ...

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images: as above -> (B, L) probabilities, and (B, D) features of each image as a whole, of its dense ones."""
        ...

    def spatial_maps(self, images: Tensor) -> Tensor:
        """(B, L, h, w): where each label is seen, each map summing to 1."""
        ...

    def calibrate(self, images: Tensor, targets: Tensor) -> None:
        """Before training: suit the scores' scale to images (N, 3, P, P) uint8 and targets (N, L), -1 unannotated."""
        ...

    def raw_clip(self) -> Classifier:
        """Before training: the backbone as a classifier that ranks labels and images exactly as raw CLIP does.

        Only to be calibrated, used and saved.
        """
        ...

    def learned_modules(self) -> dict[str, nn.Module]:
        """What training changes, by name: the state to store between epochs. Everything else is frozen."""
        ...

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Fresh optimisers over the learned parameters; their default `lr` is the base rate of the schedule."""
        ...

    def save(self, folder: Path) -> None:
        """Write config.json (with the variant's `name`) and classifier.safetensors: all that `load` needs."""
        ...


def load_classifier(folder: str | Path, device: torch.device | str = "cpu") -> Classifier:
    """A saved classifier in evaluation mode, built by the variant that saved it.

    Raises:
        ValueError: the folder holds no usable classifier.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no classifier's config ({error}): run `dvc repro train_classifier`") from error
    return cast(Classifier, load_plugin("classifiers", name).load(Path(folder), torch.device(device)))


def check_labels(classifier: Classifier, labels: Sequence[str]) -> None:
    """Scores and targets are compared column by column.

    Raises:
        ValueError: the classifier answers for other labels, or in another order.
    """
    if classifier.labels != tuple(labels):
        raise ValueError(f"the classifier knows {classifier.labels}, the label space {tuple(labels)}: train it again")
