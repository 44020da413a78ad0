"""Scores of photos outside the pipeline, by one classifier loaded from a folder or from the registry.

Shapes: N images, L labels, P x P pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from tailorset.classifiers import Classifier, load_classifier, saved_labels
from tailorset.compute.device import resolve_device, use_tf32
from tailorset.images.codec import decode_image, shrunk, square_pixels, upright_rgb
from tailorset.storage.checksums import check_bound
from tailorset.thresholds.novelty import Novelty
from tailorset.thresholds.rules import Decisions, Thresholds, one_threshold

if TYPE_CHECKING:
    from tailorset.records import LabelSpace

CLASSIFIER, THRESHOLDS, NOVELTY = "classifier", "thresholds.json", "novelty.safetensors"  # side by side, everywhere
EXAMPLES, FITTED_TO = "examples", "fitted_to.sha256"  # the same
REGISTRY = "models:/"
BATCH_SIZE = 64
NOVEL = "novelty"
ANSWER_KINDS = {"probability": float, "decision": str, "threshold": float, "score": float}  # one column each per label


def answer_columns(labels: Iterable[str]) -> dict[str, type]:
    """Return the columns of the table of an answer, in their order, with their types."""
    return {NOVEL: float} | {f"{name}/{label}": kind for label in labels for name, kind in ANSWER_KINDS.items()}


def is_unfamiliar(novelty: float | None) -> bool | None:
    """Tell whether a photo is beyond the limit of novelty; None if the model has no limit."""
    return None if novelty is None else novelty > 1


@dataclass(frozen=True)
class Provenance:
    """Folder or registry URI of a classifier, with the version's number, run and commit if it is registered."""

    uri: str
    version: str | None = None
    run_id: str | None = None
    commit: str | None = None

    @property
    def title(self) -> str:
        """Return the URI, with the version if there is one."""
        return f"{self.uri}, version {self.version}" if self.version else self.uri


class Looked(NamedTuple):
    """scores: (N, L). novelty: (N,), above 1 for a photo unlike those of training; None if the model has no limit."""

    scores: Tensor
    novelty: Tensor | None


class Predictor:
    """A classifier in evaluation mode with its origin and, if it has them, its thresholds and limit of novelty.

    bf16: whether a GPU computes in bfloat16; scores then differ by about 1e-2. A CPU computes in float32.

    Raises:
        ValueError: the thresholds are for other labels.
    """

    def __init__(
        self,
        classifier: Classifier,
        thresholds: Thresholds | None,
        novelty: Novelty | None,
        origin: Provenance,
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

    def pixels(self, image: Image.Image | bytes) -> Tensor:
        """Return (3, P, P) uint8: one photo as the classifier was measured on it. May be called from several threads.

        Raises:
            ValueError: bytes that are not an image.
        """
        decoded = decode_image(image) if isinstance(image, bytes) else upright_rgb(image)
        if self.rules.photo_px:
            decoded = shrunk(decoded, self.rules.photo_px)
        return square_pixels(decoded, self.classifier.image_px)

    def scores(self, pixels: Tensor, batch_size: int = BATCH_SIZE) -> Tensor:
        """Return scores (N, L) in [0, 1], float32 on the CPU, of (N, 3, P, P) uint8."""
        return self.look(pixels, batch_size).scores

    @torch.inference_mode()
    def look(self, pixels: Tensor, batch_size: int = BATCH_SIZE) -> Looked:
        """Return scores of (N, 3, P, P) uint8, and the novelty of each photo."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            batches = [self.classifier.look(batch.to(self.device).float() / 255) for batch in pixels.split(batch_size)]
        scores, features = (torch.cat(parts).float().cpu() for parts in zip(*batches, strict=True))
        return Looked(scores, self.novelty.of(features) if self.novelty else None)

    @torch.inference_mode()
    def map(self, pixels: Tensor, label: str) -> Tensor:
        """Return (h, w) float32 on the CPU, summing to 1: attention to the label in a (3, P, P) uint8 photo."""
        maps = self.classifier.spatial_maps(pixels[None].to(self.device).float() / 255)
        return maps[0, self.labels.index(label)].float().cpu()

    @property
    def rules(self) -> Thresholds:
        """The model's thresholds; without any, a label is present from a score of 0.5 on."""
        return self.thresholds or one_threshold(self.labels)

    @property
    def note(self) -> str:
        """Say that there are no thresholds; "" if there are."""
        if self.thresholds:
            return ""
        return (
            f"{self.origin.title} has no {THRESHOLDS}: a label is present from a score of 0.5 on, none is left open;"
            " `dvc repro fit_thresholds` makes the file where it was trained"
        )

    def decide(self, scores: Tensor) -> Decisions:
        """Return calibrated probabilities, present labels and those left open, (N, L) each."""
        return self.rules.apply(scores)

    def answers(self, looked: Looked) -> dict[str, list[Any]]:
        """Return the table of an answer: `novelty`, and `KIND/LABEL` for every kind in ANSWER_KINDS, N values each.

        Novelty is None if the model has no limit of it, and probabilities if it has no thresholds.
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


def load_predictor(model: str | Path, device: torch.device | str | None = None, bf16: bool = False) -> Predictor:
    """Load a classifier from a folder, or from the registry as `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Thresholds are read from next to the folder, where `fit_thresholds` writes them. device: None = a GPU, if any.

    Raises:
        ValueError: no such folder, version or registry, or nothing usable there.
    """
    use_tf32()
    chosen = torch.device(device) if device else resolve_device("auto")
    with model_files(model) as (folder, origin):
        return open_predictor(folder, origin, chosen, bf16)


@contextmanager
def model_files(model: str | Path) -> Iterator[tuple[Path, Provenance]]:
    """Yield the classifier's folder with its origin; files of the registry exist only inside the context.

    Its other files are next to the folder: thresholds.json, measured.json, MODEL_CARD.md.
    """
    if not str(model).startswith(REGISTRY):
        if not Path(model).is_dir():
            raise ValueError(
                f"There is no folder {model}: name one of a trained classifier, models/{CLASSIFIER} after `dvc repro`,"
                f" or a registered one as {REGISTRY}NAME@ALIAS (`tailorset status` lists them)"
            )
        yield Path(model), Provenance(str(model))
        return
    from tailorset.inference.versions import download, find_version

    version = find_version(str(model))
    origin = Provenance(str(model), str(version.version), version.run_id, version.tags.get("git.commit"))
    with tempfile.TemporaryDirectory() as folder:
        yield download(version, Path(folder)) / CLASSIFIER, origin


def model_labels(folder: Path) -> tuple[str, LabelSpace]:
    """Return the variant and the labels of the classifier in a folder of `model_files`; no weights are read.

    Raises:
        ValueError: the folder does not hold a classifier.
    """
    return saved_labels(folder)


def open_predictor(folder: Path, origin: Provenance, device: torch.device, bf16: bool = False) -> Predictor:
    """Open a folder; see `load_predictor`.

    Raises:
        ValueError: a file is damaged, or the thresholds were fitted to another classifier, say of another backbone.
    """
    thresholds, novelty = folder.parent / THRESHOLDS, folder.parent / NOVELTY
    rules = Thresholds.load(thresholds) if thresholds.exists() else None
    limit = Novelty.load(novelty) if novelty.exists() else None  # older versions have none, and no examples
    classifier = load_classifier(folder, device)
    check_bound(folder, folder.parent / FITTED_TO)  # older versions have no note
    predictor = Predictor(classifier, rules, limit, origin, device, bf16)
    predictor.examples = tuple(file.read_bytes() for file in sorted((folder.parent / EXAMPLES).glob("*.png")))
    return predictor
