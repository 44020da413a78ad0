"""How photographs become scores outside the pipeline: one classifier, loaded from a folder or from the registry.

Letters: N images, L labels, P pixels of a side.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from tailorset.classifiers import Classifier, load_classifier
from tailorset.compute.device import resolve_device, use_tf32
from tailorset.images.codec import decode_image, square_pixels
from tailorset.thresholds.novelty import Novelty
from tailorset.thresholds.rules import Decisions, Thresholds, one_threshold

CLASSIFIER, THRESHOLDS, NOVELTY = "classifier", "thresholds.json", "novelty.safetensors"  # side by side, everywhere
EXAMPLES = "examples"  # the same
REGISTRY = "models:/"
BATCH_SIZE = 64
NOVEL = "novelty"
ANSWER_KINDS = {"probability": float, "decision": str, "threshold": float, "score": float}  # one column each per label


def answer_columns(labels: Iterable[str]) -> dict[str, type]:
    """Columns of the table of an answer, in their order, and what they hold."""
    return {NOVEL: float} | {f"{name}/{label}": kind for label in labels for name, kind in ANSWER_KINDS.items()}


def is_unfamiliar(novelty: float | None) -> bool | None:
    """Whether a photo is beyond the limit of what is usual; None where that is not known."""
    return None if novelty is None else novelty > 1


@dataclass(frozen=True)
class Origin:
    """Where a classifier comes from: its folder or registry URI, and what the registry knows of the version."""

    uri: str
    version: str | None = None
    run_id: str | None = None
    commit: str | None = None

    @property
    def title(self) -> str:
        """What to call it."""
        return f"{self.uri}, version {self.version}" if self.version else self.uri


class Looked(NamedTuple):
    """scores: (N, L). novelty: (N,), above 1 a photo is unlike those of training; None where that is not known."""

    scores: Tensor
    novelty: Tensor | None


class Predictor:
    """A classifier in evaluation mode with its thresholds and its limit of novelty, where it has some, and its origin.

    bf16: whether a GPU computes in bfloat16; scores then differ by about 1e-2. A CPU computes in float32.

    Raises:
        ValueError: the thresholds are for other labels.
    """

    def __init__(
        self,
        classifier: Classifier,
        thresholds: Thresholds | None,
        novelty: Novelty | None,
        origin: Origin,
        device: torch.device,
        bf16: bool,
    ) -> None:
        if thresholds:
            thresholds.check_labels(classifier.labels)
        self.classifier, self.thresholds, self.novelty = classifier, thresholds, novelty
        self.origin, self.device = origin, device
        self.examples: tuple[bytes, ...] = ()  # PNG files of photos to try
        self.bf16 = bf16 and device.type == "cuda"
        self.labels, self.label_space = classifier.labels, classifier.label_space
        self.seen, self.unseen = self.label_space.seen, self.label_space.unseen

    def predict(self, images: Sequence[Image.Image | bytes], batch_size: int = BATCH_SIZE) -> Tensor:
        """Scores (N, L) in [0, 1], float32 on the CPU, of RGB images or of the bytes of image files.

        Raises:
            ValueError: bytes that are no image; names its number, from 0.
        """
        if not images:
            return torch.empty(0, len(self.labels))
        return self.scores(torch.stack([self._numbered(*item) for item in enumerate(images)]), batch_size)

    def pixels(self, image: Image.Image | bytes) -> Tensor:
        """(3, P, P) uint8: one photograph as the classifier was measured on it. May be called from several threads.

        Raises:
            ValueError: bytes that are no image.
        """
        decoded = decode_image(image) if isinstance(image, bytes) else image.convert("RGB")
        return square_pixels(decoded, self.classifier.image_px)

    def scores(self, pixels: Tensor, batch_size: int = BATCH_SIZE) -> Tensor:
        """Scores (N, L) in [0, 1], float32 on the CPU, of (N, 3, P, P) uint8."""
        return self.look(pixels, batch_size).scores

    @torch.inference_mode()
    def look(self, pixels: Tensor, batch_size: int = BATCH_SIZE) -> Looked:
        """The same, and how unlike the photos of training each one is."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            batches = [self.classifier.look(batch.to(self.device).float() / 255) for batch in pixels.split(batch_size)]
        scores, features = (torch.cat(parts).float().cpu() for parts in zip(*batches, strict=True))
        return Looked(scores, self.novelty.of(features) if self.novelty else None)

    @torch.inference_mode()
    def map(self, pixels: Tensor, label: str) -> Tensor:
        """(h, w) float32 on the CPU, summing to 1: where in one (3, P, P) uint8 photograph the label is looked for."""
        maps = self.classifier.spatial_maps(pixels[None].to(self.device).float() / 255)
        return maps[0, self.labels.index(label)].float().cpu()

    @property
    def rules(self) -> Thresholds:
        """The model's thresholds; without any, a label is present from a score of 0.5 on."""
        return self.thresholds or one_threshold(self.labels)

    def decide(self, scores: Tensor) -> Decisions:
        """Calibrated probabilities, what is present and what is left open, (N, L) each."""
        return self.rules.apply(scores)

    def answers(self, looked: Looked) -> dict[str, list[Any]]:
        """The table of an answer: `novelty`, and `KIND/LABEL` for every kind in ANSWER_KINDS, N values each.

        Novelty, and probabilities, are None where the model has no limit of it, or no thresholds.
        """
        scores, novelty = looked
        unknown = [None] * len(scores)
        decisions = self.decide(scores)
        words = list(zip(*decisions.words, strict=True))
        columns: dict[str, list[Any]] = {NOVEL: unknown if novelty is None else novelty.tolist()}
        for number, (label, rule) in enumerate(self.rules.rules.items()):
            columns |= {
                f"probability/{label}": decisions.probabilities[:, number].tolist() if self.thresholds else unknown,
                f"decision/{label}": list(words[number]),
                f"threshold/{label}": [rule.threshold] * len(scores),
                f"score/{label}": scores[:, number].tolist(),
            }
        return columns

    def _numbered(self, number: int, image: Image.Image | bytes) -> Tensor:
        try:
            return self.pixels(image)
        except ValueError as error:
            raise ValueError(f"image {number}: {error}") from None


def load_predictor(model: str | Path, device: torch.device | str | None = None, bf16: bool = False) -> Predictor:
    """A classifier from a folder, or from the registry as `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Thresholds are read from beside the folder, where `fit_thresholds` puts them. device: None = a GPU, if there is one.

    Raises:
        ValueError: no such folder, version or registry, or nothing usable there.
    """
    use_tf32()
    chosen = torch.device(device) if device else resolve_device("auto")
    with model_files(model) as (folder, origin):
        return open_predictor(folder, origin, chosen, bf16)


@contextmanager
def model_files(model: str | Path) -> Iterator[tuple[Path, Origin]]:
    """The classifier's folder with its origin; what comes from the registry lies there only inside the context.

    All else that belongs to it lies beside the folder: thresholds.json, measured.json, MODEL_CARD.md.
    """
    if not str(model).startswith(REGISTRY):
        if not Path(model).is_dir():
            raise ValueError(
                f"There is no folder {model}: name one of a trained classifier, models/{CLASSIFIER} after `dvc repro`,"
                f" or a registered one as {REGISTRY}NAME@ALIAS (`tailorset status` lists them)"
            )
        yield Path(model), Origin(str(model))
        return
    from tailorset.inference.versions import download, find_version

    version = find_version(str(model))
    origin = Origin(str(model), str(version.version), version.run_id, version.tags.get("git.commit"))
    with tempfile.TemporaryDirectory() as folder:
        yield download(version, Path(folder)) / CLASSIFIER, origin


def open_predictor(folder: Path, origin: Origin, device: torch.device, bf16: bool = False) -> Predictor:
    """See `load_predictor`."""
    thresholds, novelty = folder.parent / THRESHOLDS, folder.parent / NOVELTY
    rules = Thresholds.load(thresholds) if thresholds.exists() else None
    limit = Novelty.load(novelty) if novelty.exists() else None  # older versions have none, and no examples
    predictor = Predictor(load_classifier(folder, device), rules, limit, origin, device, bf16)
    predictor.examples = tuple(file.read_bytes() for file in sorted((folder.parent / EXAMPLES).glob("*.png")))
    return predictor
