"""Photos to try a model on, stored with each version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tailorset.images.codec import encode_png
from tailorset.storage.annotated import Annotated
from tailorset.storage.shards import load_images

NUM_EXAMPLES = 4


def write_examples(photos: Annotated, folder: Path) -> None:
    """Write a few photos that together show many labels, as PNG files."""
    shown = photos.targets == 1
    covered = torch.zeros(shown.shape[1], dtype=torch.bool)
    chosen: list[int] = []
    for _ in range(min(NUM_EXAMPLES, len(photos.rows))):
        gains = (shown & ~covered).sum(1)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        covered |= shown[chosen[-1]]
    folder.mkdir()
    for number, (_, image) in enumerate(load_images(photos.rows.iloc[chosen], photos.folder)):
        (folder / f"{number}.png").write_bytes(encode_png(np.asarray(image)))
