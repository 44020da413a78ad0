"""Annotated images of a project, found by their kind and split, decoded only when needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from tailorset.records import DRAWN_COLUMNS, NEGATIVES, LabelSpace, Source
from tailorset.storage.image_set import (
    ImageSet,
    empty_pixels,
    load_image_set,
    real_rows,
    split_held_out,
    synthetic_rows,
    targets_without,
)
from tailorset.storage.products import read_table


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
class Several:
    """Annotated images of several folders, at least one, as one set."""

    parts: tuple[Annotated, ...]

    @property
    def targets(self) -> Tensor:
        return torch.cat([part.targets for part in self.parts])

    def load(self, image_px: int) -> ImageSet:
        """Decode the images, as one part does."""
        sets = [part.load(image_px) for part in self.parts]
        ids = tuple(image_id for one in sets for image_id in one.ids)
        images = empty_pixels((len(ids), *sets[0].images.shape[1:]))
        torch.cat([one.images for one in sets], out=images)
        return ImageSet(ids, images, self.targets, sets[0].source)

    def split(self, share: float) -> tuple[Several, Several]:
        """Split each part, as if it were alone."""
        trained, held_out = zip(*(part.split(share) for part in self.parts), strict=True)
        return Several(trained), Several(held_out)


def joined(parts: Sequence[Annotated | Several]) -> Annotated | Several:
    """Return the images of at least one part as one set."""
    if len(parts) == 1:
        return parts[0]
    return Several(tuple(one for part in parts for one in (part.parts if isinstance(part, Several) else [part])))


@dataclass(frozen=True)
class Collection:
    """Folders of the photos, of the generated images, and of the filter's decisions on these.

    earlier: the same two folders of images that were generated before, for fewer labels.
    """

    label_space: LabelSpace
    real: Path
    synthetic: Path
    filtered: Path
    earlier: tuple[tuple[Path, Path], ...] = ()

    @property
    def photo_px(self) -> int:
        """Longest shorter side of a photo as it is stored."""
        sides = pd.read_parquet(self.real / "manifest.parquet", columns=["width", "height"])
        return int(sides.min(axis=1).max())

    def photos(self, split: str) -> Annotated:
        """Photos of one split.

        Raises:
            ValueError: there are none, or targets of a label are missing.
        """
        return Annotated(*real_rows(self.real, split, self.label_space), self.real, "real")

    def generated(self) -> Annotated | Several:
        """Generated images that the filter kept, annotated for unseen labels only."""
        folders = [(self.synthetic, self.filtered), *self.earlier]
        return joined([self._kept(synthetic, filtered) for synthetic, filtered in folders])

    def negatives(self) -> list[Annotated]:
        """Images that were generated for seen labels and show no unseen one; one element per folder."""
        folders = [synthetic / NEGATIVES for synthetic in (self.synthetic, *(first for first, _ in self.earlier))]
        return [self._without_unseen(folder) for folder in folders if folder.exists()]

    def _without_unseen(self, folder: Path) -> Annotated:
        rows = read_table(folder / "manifest.parquet", columns=DRAWN_COLUMNS)
        targets = targets_without(rows["prompt"], [()] * len(rows), self.label_space)
        return Annotated(rows, targets, folder, "synthetic")

    def _kept(self, synthetic: Path, filtered: Path) -> Annotated:
        return Annotated(*synthetic_rows(filtered / "manifest.parquet", self.label_space), synthetic, "synthetic")
