"""Photos of val and test: nothing that is trained on may be a copy of one.

Shapes: N photos of val and test, M others, D numbers of a signature.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tailorset.images.signatures import signature
from tailorset.progress import Bar
from tailorset.storage.products import read_table
from tailorset.storage.shards import load_images

LIKE = 0.95  # correlation of pixels from which a photo counts as one of val or test
AT_ONCE = 1000  # photos that are compared in one product


def photo_signature(image: Image.Image) -> np.ndarray:
    """Return the signature (D,) of a photo in the precision in which photos are compared."""
    return signature(image).astype(np.float32)


def held_out_digest(real: Path) -> str:
    """Return a digest of the contents of the photos of val and test; real: folder of the real images."""
    return hashlib.sha256("\n".join(sorted(_held_out(real)["sha256"])).encode()).hexdigest()


def held_out_signatures(real: Path) -> np.ndarray:
    """(N, D) signatures of the photos of val and test; real: folder of the real images.

    Raises:
        ValueError: there is no manifest.
    """
    rows = _held_out(real)
    images = Bar(load_images(rows, real), total=len(rows), desc="photos of val and test", unit="photo")
    return np.array([photo_signature(image) for _, image in images])


def _held_out(real: Path) -> pd.DataFrame:
    rows = read_table(real / "manifest.parquet", "prepare_dataset")
    return rows[rows["split"] != "train"]


def are_copies(signatures: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Return (M,) bool: whose signatures (M, D) are like one of the signatures (N, D) of val and test."""
    if not len(held_out):
        return np.zeros(len(signatures), dtype=bool)
    parts = [signatures[start : start + AT_ONCE] for start in range(0, len(signatures), AT_ONCE)]
    return np.concatenate([(part @ held_out.T).max(axis=1) >= LIKE for part in parts])
