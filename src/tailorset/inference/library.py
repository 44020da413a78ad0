"""A trained classifier in a Python program: scores of photos as a table, and where a label is seen.

Shapes: N photos, L labels, H x W pixels, h x w positions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from tailorset.images.codec import decode_image, file_content, upright_rgb
from tailorset.inference.predictor import BATCH_SIZE, Looked, Predictor, load_predictor
from tailorset.messages import cause_of

Photo = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
Answer = Literal["probability", "score", "decision"]
ANSWERS: tuple[Answer, ...] = ("probability", "score", "decision")
HEAT = (255, 64, 0)  # RGB


@dataclass(frozen=True)
class HeatMap:
    """Places of one photo in which a classifier sees one label.

    weights: (h, w) float32, summing to 1, a coarse grid over the whole photo. photo: RGB, as it was given.
    """

    label: str
    weights: NDArray[np.float32]
    photo: Image.Image

    def overlay(self, strength: float = 0.7) -> Image.Image:
        """Return the photo with the weights in red, RGB; strength: opacity of the highest weight, in [0, 1].

        Raises:
            ValueError: the strength is outside.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength is {strength}: choose from 0 to 1")
        opacity = Image.fromarray((255 * strength * self.weights / self.weights.max()).astype(np.uint8))
        mask = opacity.resize(self.photo.size, Image.Resampling.BICUBIC)
        return Image.composite(Image.new("RGB", self.photo.size, HEAT), self.photo, mask)


class Model:
    """A trained classifier with its thresholds.

    labels: all L labels in the order of the columns. seen: those learned from annotated photos. unseen: those learned
    from generated images.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.labels, self.seen, self.unseen = predictor.labels, predictor.seen, predictor.unseen

    def __repr__(self) -> str:
        return f"<tailorset.Model {self._predictor.origin.title}: {len(self.labels)} labels>"

    def predict(
        self, photos: Iterable[Photo], answer: Answer = "probability", batch_size: int = BATCH_SIZE
    ) -> pd.DataFrame:
        """Return a table with a row per photo and a column per label.

        photos: paths, bytes of image files, PIL images or (H, W, 3) uint8 arrays in RGB; read batch by batch.
        answer: "probability" (calibrated, in [0, 1]), "score" (as the classifier gives it, in [0, 1]) or "decision"
        ("present", "absent", or "open" where being wrong is too likely).

        Returns:
            The table; its index has the paths of photos that are given by path, and numbers from 0 of others.

        Raises:
            ValueError: a photo cannot be read, which is named; an unknown answer; or probabilities of a classifier that
                has no thresholds.
        """
        if answer not in ANSWERS:
            raise ValueError(f"{answer!r} is not an answer: choose from {', '.join(ANSWERS)}")
        if answer == "probability" and not self._predictor.thresholds:
            raise ValueError(
                f"{self._predictor.origin.title} has no thresholds, so its scores are not calibrated: ask for"
                ' answer="score", or run `dvc repro fit_thresholds` where it was trained'
            )
        rows = [(names, self._answer(looked, answer)) for names, looked in self._looked(photos, batch_size)]
        index = [name for names, _ in rows for name in names]
        values = np.concatenate([part for _, part in rows]) if rows else np.empty((0, len(self.labels)))
        return pd.DataFrame(values, index=pd.Index(index, name="photo"), columns=list(self.labels))

    def novelty(self, photos: Iterable[Photo], batch_size: int = BATCH_SIZE) -> pd.Series[float]:
        """Return how unlike the training photos each photo is; above 1, answers should not be trusted.

        photos, index and errors: as in `predict`. NaN for a classifier that has no limit of novelty.
        """
        index: list[str | int] = []
        values: list[float] = []
        for names, looked in self._looked(photos, batch_size):
            index += names
            values += [float("nan")] * len(names) if looked.novelty is None else looked.novelty.tolist()
        return pd.Series(values, index=pd.Index(index, name="photo"), name="novelty", dtype=float)

    def explain(self, photo: Photo, label: str) -> HeatMap:
        """Return where the classifier sees a label in a photo, whether or not it is there.

        Raises:
            ValueError: the photo cannot be read, or the label is not one of the classifier's.
        """
        if label not in self.labels:
            raise ValueError(f"{label!r} is not a label of this classifier: choose from {', '.join(self.labels)}")
        opened = opened_photo(photo, "the photo")
        weights = self._predictor.map(self._predictor.pixels(opened), label)
        return HeatMap(label, weights.numpy(), opened)

    def _looked(self, photos: Iterable[Photo], batch_size: int) -> Iterator[tuple[list[str | int], Looked]]:
        if isinstance(photos, str | os.PathLike | bytes | Image.Image):
            raise ValueError(f"photos must be a list, not one {type(photos).__name__}: write [photo]")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: choose 1 or more")
        numbered = enumerate(photos)
        while batch := list(islice(numbered, batch_size)):
            names = [os.fspath(photo) if isinstance(photo, str | os.PathLike) else number for number, photo in batch]
            pixels = [
                self._predictor.pixels(opened_photo(photo, f"photo {name}"))
                for name, (_, photo) in zip(names, batch, strict=True)
            ]
            yield names, self._predictor.look(torch.stack(pixels), batch_size)

    def _answer(self, looked: Looked, answer: Answer) -> NDArray[np.float32] | NDArray[np.str_]:
        if answer == "score":
            return looked.scores.numpy()
        decisions = self._predictor.decide(looked.scores)
        return np.array(decisions.words) if answer == "decision" else decisions.probabilities.numpy()


def opened_photo(photo: Photo, name: str) -> Image.Image:
    """Return a photo as an RGB image; `name` is how an error calls it.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        opened = _opened(photo)
        if not opened.width * opened.height:
            raise ValueError(f"it has no pixels: {opened.width} x {opened.height}")
        return opened
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {cause_of(error)}") from error


def _opened(photo: Photo) -> Image.Image:
    if isinstance(photo, Image.Image):
        return upright_rgb(photo)
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
            raise ValueError(f"an array must be (H, W, 3) uint8, not {photo.shape} {photo.dtype}")
        return Image.fromarray(photo)
    if isinstance(photo, str | os.PathLike):
        return decode_image(file_content(Path(photo)))
    if isinstance(photo, bytes):
        return decode_image(photo)
    raise ValueError(f"a {type(photo).__name__} is no photo: give a path, bytes, a PIL image or an array")


def load(model: str | os.PathLike[str], device: str | None = None, bf16: bool = False) -> Model:
    """Load a trained classifier.

    model: its folder, models/classifier of a project; or `models:/NAME@ALIAS` or `models:/NAME/VERSION` of the MLflow
    registry, which needs the extra `serve`. device: "cpu" or "cuda"; None = a GPU, if any. bf16: compute in bfloat16
    on a GPU.

    Raises:
        ValueError: no such folder, version or registry, or nothing usable there.
    """
    return Model(load_predictor(os.fspath(model), device, bf16))
