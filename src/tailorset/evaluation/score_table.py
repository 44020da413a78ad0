"""Scores of the test images as stored on disk: one row per image and method, one column per label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from tailorset.storage.products import unusable


def score_table(method: str, scores: Tensor, image_ids: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Return method, image_id, then the scores, (N, L), before any normalisation."""
    table = pd.DataFrame(scores.float().numpy(), columns=list(names))
    return pd.DataFrame({"method": method, "image_id": image_ids}).join(table)


def read_scores(
    path: Path, image_ids: Sequence[str], names: Sequence[str], stage: str = "evaluate"
) -> dict[str, Tensor]:
    """Read the (N, L) scores of each method in a table, in the order of `image_ids` and `names`.

    stage: the one that makes the table.

    Raises:
        ValueError: the table is missing, damaged, or of other photos or labels.
    """
    with _readable(path, stage):
        tables = pd.read_parquet(path).set_index("image_id").groupby("method", sort=False)
        ordered = {str(method): rows.loc[list(image_ids), list(names)] for method, rows in tables}
        return {method: torch.tensor(rows.to_numpy("float32")) for method, rows in ordered.items()}


@contextmanager
def _readable(path: Path, stage: str) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise ValueError(unusable(path, "scores of these photos and labels", error, stage)) from error
