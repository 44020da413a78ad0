"""Scores of the test images as stored on disk: one row per image and method, one column per label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor


def score_table(method: str, scores: Tensor, image_ids: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Return method, image_id, then the scores, (N, L), before any normalisation."""
    table = pd.DataFrame(scores.float().numpy(), columns=list(names))
    return pd.DataFrame({"method": method, "image_id": image_ids}).join(table)


def read_methods(path: Path) -> set[str]:
    """Read which methods a table has scores of."""
    return set(pd.read_parquet(path, columns=["method"])["method"])


def read_scores(path: Path, method: str, image_ids: Sequence[str], names: Sequence[str]) -> Tensor:
    """Read the (N, L) scores of one method, in the order of `image_ids` and `names`."""
    table = pd.read_parquet(path)
    chosen = table[table["method"] == method].set_index("image_id")
    return torch.tensor(chosen.loc[list(image_ids), list(names)].to_numpy("float32"))
