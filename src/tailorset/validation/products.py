"""The products that training reads, as tables: one manifest or more per stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from tailorset.records import PHOTO_COLUMNS


@dataclass(frozen=True)
class Products:
    """The manifests of every stage before training, as read from Parquet; negatives: None if none were drawn."""

    prompts: pd.DataFrame
    real: pd.DataFrame
    targets: pd.DataFrame
    synthetic: pd.DataFrame
    filtered: pd.DataFrame
    negatives: pd.DataFrame | None = None

    @property
    def kept(self) -> pd.DataFrame:
        """Rows of the filtered manifest whose images are kept."""
        return self.filtered[self.filtered["kept"].astype(bool)]

    @property
    def starts_from_photos(self) -> bool:
        """True if the generated images started from photos, which their manifest names then."""
        return not set(PHOTO_COLUMNS).isdisjoint(self.synthetic.columns)

    def positives(self, labels: Sequence[str], split: str) -> list[int]:
        """Number of images of a split that show each label."""
        ids = self.real.loc[self.real["split"] == split, "image_id"]
        targets = self.targets[self.targets["image_id"].isin(ids)]
        return [int(targets[label].eq(1).sum()) for label in labels]
