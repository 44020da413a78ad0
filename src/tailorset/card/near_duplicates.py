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


def closest_pairs(signatures: np.ndarray, number: int, near: float = np.inf) -> list[Pair]:
    """Return the most similar pairs of (N, D) signatures, most similar first; equal ones in the order of their rows.

    number: pairs to return, if there are so many. near: pairs at least this similar are returned in any case.
    """
    first, second = np.triu_indices(len(signatures), k=1)
    similarities = (signatures @ signatures.T)[first, second]
    number = max(min(number, len(similarities)), int((similarities >= near).sum()))
    if not number:
        return []
    least = -np.partition(-similarities, number - 1)[number - 1]
    chosen = np.flatnonzero(similarities >= least)
    chosen = chosen[np.argsort(-similarities[chosen], kind="stable")][:number]
    columns = (first[chosen].tolist(), second[chosen].tolist(), similarities[chosen].tolist())
    return [Pair(*pair) for pair in zip(*columns, strict=True)]
