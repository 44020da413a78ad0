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


def read_methods(path: Path, stage: str = "evaluate") -> set[str]:
    """Read which methods a table has scores of; errors as in `read_scores`."""
    with _readable(path, stage):
        return set(pd.read_parquet(path, columns=["method"])["method"])


def read_scores(
    path: Path, method: str, image_ids: Sequence[str], names: Sequence[str], stage: str = "evaluate"
) -> Tensor:
    """Read the (N, L) scores of one method, in the order of `image_ids` and `names`.

    stage: the one that makes the table.

    Raises:
        ValueError: the table is missing, damaged, or of other photos or labels.
    """
    with _readable(path, stage):
        table = pd.read_parquet(path)
        chosen = table[table["method"] == method].set_index("image_id")
        return torch.tensor(chosen.loc[list(image_ids), list(names)].to_numpy("float32"))


@contextmanager
def _readable(path: Path, stage: str) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise ValueError(unusable(path, "scores of these photos and labels", error, stage)) from error
