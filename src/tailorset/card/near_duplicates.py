"""Images with nearly the same picture, found by their signatures (`images/signatures.py`).

Shapes: N images, D numbers of a signature.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PAIRS_AT_ONCE = 2**21  # similarities in memory, besides those that are kept


class Pair(NamedTuple):
    """Two row numbers and the similarity of their images, at most 1."""

    first: int
    second: int
    similarity: float


def closest_pairs(signatures: np.ndarray, number: int, near: float = np.inf) -> list[Pair]:
    """Return the most similar pairs of (N, D) signatures, most similar first; equal ones in the order of their rows.

    number: pairs to return, if there are so many. near: pairs at least this similar are returned in any case.
    """
    first = second = np.empty(0, np.int64)
    similarities = np.empty(0, signatures.dtype)
    height = max(1, PAIRS_AT_ONCE // max(1, len(signatures)))
    for start in range(0, len(signatures), height):
        block = signatures[start : start + height] @ signatures[start:].T
        row, column = np.triu_indices(len(block), k=1, m=block.shape[1])
        first, second = np.append(first, start + row), np.append(second, start + column)
        similarities = np.append(similarities, block[row, column])
        chosen = _most_similar(similarities, number, near)
        first, second, similarities = first[chosen], second[chosen], similarities[chosen]
    columns = (first.tolist(), second.tolist(), similarities.tolist())
    return [Pair(*pair) for pair in zip(*columns, strict=True)]


def _most_similar(similarities: np.ndarray, number: int, near: float) -> np.ndarray:
    """Return the positions to keep, highest first; equal ones in their order."""
    number = max(min(number, len(similarities)), int((similarities >= near).sum()))
    if not number:
        return np.empty(0, np.int64)
    least = -np.partition(-similarities, number - 1)[number - 1]
    chosen = np.flatnonzero(similarities >= least)
    return chosen[np.argsort(-similarities[chosen], kind="stable")][:number]
