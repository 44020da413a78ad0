"""Images with nearly the same picture, found by their signatures (`images/signatures.py`).

Shapes: N images, D numbers of a signature.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Pair(NamedTuple):
    """Two row numbers and the similarity of their images, at most 1."""

    first: int
    second: int
    similarity: float


def closest_pairs(signatures: np.ndarray) -> list[Pair]:
    """Return all pairs of (N, D) signatures, most similar first; equal ones in the order of their rows."""
    first, second = np.triu_indices(len(signatures), k=1)
    similarities = (signatures @ signatures.T)[first, second]
    order = np.argsort(-similarities, kind="stable")
    columns = (first[order].tolist(), second[order].tolist(), similarities[order].tolist())
    return [Pair(*pair) for pair in zip(*columns, strict=True)]
