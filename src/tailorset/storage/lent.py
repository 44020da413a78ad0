"""Photos that prompts and drawings may start from, without annotations: those of train, or of another folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tailorset.seeding import sample_seed
from tailorset.storage.products import read_table

LENT = "lent"  # folder within the product of real images, if photos come from a folder of their own


class LentPhotos(NamedTuple):
    """Manifest rows (image_id, shard, sha256) of photos, and the folder of their shards."""

    rows: pd.DataFrame
    folder: Path

    @property
    def digest(self) -> str:
        """Digest of ids and contents: what starts from the photos goes stale with it."""
        return hashlib.sha256("\n".join(self.rows["image_id"] + " " + self.rows["sha256"]).encode()).hexdigest()

    def some(self, number: int, seed: int) -> LentPhotos:
        """Return at most `number` of the photos, chosen by their ids and the seed."""
        order = sorted(self.rows["image_id"], key=lambda image_id: sample_seed("lent", seed, image_id))
        return LentPhotos(self.rows[self.rows["image_id"].isin(order[:number])].reset_index(drop=True), self.folder)


def lent_photos(real: Path) -> LentPhotos:
    """Return all photos that are lent; never those of val and test. real: folder of the real images.

    Raises:
        ValueError: there is no manifest, or no photo.
    """
    folder = real / LENT if (real / LENT).exists() else real
    rows = read_table(folder / "manifest.parquet", "prepare_dataset")
    if folder == real:
        rows = rows[rows["split"] == "train"]
    if rows.empty:
        raise ValueError(
            f"{folder} has no photo to lend: set prepare_dataset.lend_photos to a folder of photos, or to null"
        )
    return LentPhotos(rows, folder)
