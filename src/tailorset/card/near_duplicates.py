"""Images with nearly the same picture, found by their pixels: no model, so none that steered generation.

Shapes: N images, D numbers of a signature.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

SIGNATURE_PX = 16


class Pair(NamedTuple):
    """Two row numbers and the similarity of their images, at most 1."""

    first: int
    second: int
    similarity: float


def signature(image: Image.Image) -> np.ndarray:
    """Return (D,) unit vector of an RGB image: 16 x 16 pixels minus their mean; zero for an image of a single colour.

    The product of two signatures is the correlation of their pixels, which does not depend on brightness or contrast.
    """
    size = (SIGNATURE_PX, SIGNATURE_PX)
    pixels = np.asarray(image.resize(size, Image.Resampling.BOX), dtype=np.float64).ravel()
    centred = pixels - pixels.mean()
    length = np.linalg.norm(centred)
    return centred / length if length > 0 else centred


def closest_pairs(signatures: np.ndarray) -> list[Pair]:
    """Return all pairs of (N, D) signatures, most similar first; equal ones in the order of their rows."""
    first, second = np.triu_indices(len(signatures), k=1)
    similarities = (signatures @ signatures.T)[first, second]
    order = np.argsort(-similarities, kind="stable")
    columns = (first[order].tolist(), second[order].tolist(), similarities[order].tolist())
    return [Pair(*pair) for pair in zip(*columns, strict=True)]
