"""Annotated images of a project, found by their kind and split, decoded only when needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import Tensor

from tailorset.records import LabelSpace, Source
from tailorset.storage.image_set import ImageSet, load_image_set, real_rows, split_held_out, synthetic_rows


@dataclass(frozen=True)
class Annotated:
    """Manifest rows and their targets, (N, L), of images in one folder."""

    rows: pd.DataFrame
    targets: Tensor
    folder: Path
    source: Source

    def load(self, image_px: int) -> ImageSet:
        """Decode the images, squashed to squares of `image_px`."""
        return load_image_set(self.rows, self.targets, self.folder, image_px, self.source)

    def split(self, share: float) -> tuple[Annotated, Annotated]:
        """Return the part that training sees and the part held out: `share` of the prompts or photos."""
        parts = split_held_out(self.rows, self.targets, share)
        trained, held_out = (Annotated(*part, self.folder, self.source) for part in parts)
        return trained, held_out


@dataclass(frozen=True)
class Collection:
    """Folders of the photos, of the generated images, and of the filter's decisions on these."""

    label_space: LabelSpace
    real: Path
    synthetic: Path
    filtered: Path

    def photos(self, split: str) -> Annotated:
        """Photos of one split.

        Raises:
            ValueError: there are none, or targets of a label are missing.
        """
        return Annotated(*real_rows(self.real, split, self.label_space), self.real, "real")

    def generated(self) -> Annotated:
        """Generated images that the filter kept, annotated for unseen labels only."""
        return Annotated(
            *synthetic_rows(self.filtered / "manifest.parquet", self.label_space), self.synthetic, "synthetic"
        )
