"""Signatures of pictures, whose product tells near-duplicates: no model, so none that steered generation.

Shapes: D numbers of a signature.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

SIGNATURE_PX = 16


def signature(image: Image.Image) -> np.ndarray:
    """Return (D,) unit vector of an RGB image: 16 x 16 pixels minus their mean; zero for an image of a single colour.

    The product of two signatures is the correlation of their pixels, which does not depend on brightness or contrast.
    """
    size = (SIGNATURE_PX, SIGNATURE_PX)
    pixels = np.asarray(image.resize(size, Image.Resampling.BOX), dtype=np.float64).ravel()
    centred = pixels - pixels.mean()
    length = np.linalg.norm(centred)
    return centred / length if length > 0 else centred
