"""Reading the web-style set: mini-batches by step, so that a resumed training sees the same ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from foundation_settings import WEB
from torch import Tensor


@dataclass(frozen=True)
class Web:
    """images (N, P, P, 3) uint8, objects (N, L) bool, captions (N, C) strings."""

    images: np.ndarray
    objects: np.ndarray
    captions: list[list[str]]

    @classmethod
    def load(cls, half: Literal["all", "even", "odd"] = "all") -> Web:
        start, stride = {"all": (0, 1), "even": (0, 2), "odd": (1, 2)}[half]
        captions = json.loads((WEB / "captions.json").read_text())
        images = np.load(WEB / "images.npy", mmap_mode="r")
        return cls(images[start::stride], np.load(WEB / "objects.npy")[start::stride], captions[start::stride])

    def __len__(self) -> int:
        return len(self.captions)

    def pixels(self, indices: np.ndarray, size_px: int | None = None) -> Tensor:
        """Images (B, 3, P, P) in [0, 1], resized to `size_px` by area averaging."""
        images = torch.from_numpy(self.images[np.sort(indices)][np.argsort(np.argsort(indices))])
        images = images.permute(0, 3, 1, 2).float() / 255
        if size_px is None or size_px == images.shape[-1]:
            return images
        return torch.nn.functional.interpolate(images, size=(size_px, size_px), mode="area")


def batch_indices(count: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Indices (B,) of one step: every image once an epoch, in an order that depends on (seed, epoch) only."""
    per_epoch = count // batch_size
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return order[position * batch_size : (position + 1) * batch_size]
