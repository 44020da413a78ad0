"""Reading the web-style set: mini-batches by step, so that a resumed training sees the same ones.

Shapes: N images, P pixels, L labels, C captions per image, T tokens, B images of a batch, K colours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from foundation_settings import WEB
from torch import Tensor
from torch.nn import functional as F
from training_loop import device, work_file

from tailorset.toybox.objects import DRAWINGS

TOKENISED_AT_ONCE = 20_000


@dataclass(frozen=True)
class Web:
    """A half of the set, or all of it. On a GPU the images are kept there, else they are read as they are needed.

    images: (N, P, P, 3) uint8. shown: (N, L, 1 + K) bool, a label and its colours. is_snapshot: (N,) bool.
    rows: (N,) numbers of these images in the whole set.
    """

    images: Tensor
    shown: Tensor
    is_snapshot: Tensor
    rows: np.ndarray

    @classmethod
    def load(cls, half: Literal["all", "even", "odd"] = "all") -> Web:
        start, stride = {"all": (0, 1), "even": (0, 2), "odd": (1, 2)}[half]
        images = torch.from_numpy(np.load(WEB / "images.npy", mmap_mode="c"))[start::stride]
        shown, is_snapshot = (torch.from_numpy(np.load(WEB / f"{name}.npy")) for name in ("shown", "is_snapshot"))
        return cls(
            images.to(device()) if device().type == "cuda" else images,
            shown[start::stride].to(device()),
            is_snapshot[start::stride].to(device()),
            np.arange(start, len(shown), stride),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, indices: np.ndarray, size_px: int | None = None) -> Tensor:
        """Return images (B, 3, P, P) in [0, 1], resized to `size_px` by area averaging."""
        chosen = torch.from_numpy(indices).to(self.images.device)
        images = self.images[chosen].to(device()).permute(0, 3, 1, 2).float() / 255
        if size_px is None or size_px == images.shape[-1]:
            return images
        return F.interpolate(images, size=(size_px, size_px), mode="area")

    def tokens(self, tokenizer: Any) -> Tensor:
        """Return (N, C, T) ids of the captions; all captions are turned into tokens once, and kept on disk."""
        path, partial = work_file("tokens.npy"), work_file("tokens_partial.npy")
        if not path.exists():
            ids = np.stack([token_ids(tokenizer, texts).numpy() for texts in zip(*all_captions(), strict=True)], axis=1)
            np.save(partial, ids.astype(np.int16))
            partial.rename(path)
        return torch.from_numpy(np.load(path)[self.rows]).to(device())


def all_captions() -> list[list[str]]:
    """Return the C captions of each of the N images."""
    return json.loads((WEB / "captions.json").read_text(encoding="utf-8"))


def num_named() -> np.ndarray:
    """Return (N, C) the number of different objects that each caption names."""
    names = re.compile(rf"\b(?:{'|'.join(map(re.escape, DRAWINGS))})\b")
    return np.array([[len(set(names.findall(text))) for text in captions] for captions in all_captions()])


def token_ids(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Return (len, T) ids, padded to the tokenizer's full length."""
    parts = [texts[start : start + TOKENISED_AT_ONCE] for start in range(0, len(texts), TOKENISED_AT_ONCE)]
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    return torch.cat([tokenizer(list(part), **options).input_ids for part in parts])


def batch_indices(count: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Return indices (B,) of one step: every image once an epoch, in an order that depends on (seed, epoch) only."""
    per_epoch = count // batch_size
    epoch, position = divmod(step, per_epoch)
    return _order(count, seed, epoch)[position * batch_size : (position + 1) * batch_size]


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def caption_choice(num_captions: int, count: int) -> Tensor:
    """Return (count,) the caption of each image in this step."""
    return torch.randint(num_captions, (count,), device=device())
