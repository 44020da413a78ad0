"""Photos that images start from, chosen by the image's seed, and the check that no image is a copy of its photo.

Shapes: N photos, B images of a batch, C x h x w latents, D numbers of a signature, P pixels of a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tailorset.generation.settings import FromPhotos
from tailorset.generators import PhotoGenerator
from tailorset.images.codec import square_pixels
from tailorset.images.signatures import signature
from tailorset.records import PHOTO_COLUMNS
from tailorset.seeding import sample_seed
from tailorset.storage.shards import load_images


@dataclass(frozen=True)
class SourcePhotos:
    """A Sampler that starts from photos: their ids, latents (N, C, h, w) on the CPU and signatures (N, D)."""

    config: FromPhotos
    generator: PhotoGenerator
    ids: Sequence[str]
    latents: Tensor
    signatures: np.ndarray

    @classmethod
    def encode(cls, config: FromPhotos, generator: PhotoGenerator, photos: pd.DataFrame, folder: Path) -> SourcePhotos:
        """Encode photos once, each alone, so that no image depends on the others.

        photos: rows of the manifest in `folder`; the middle square of each is used.
        """
        ids, latents, signatures = [], [], []
        for image_id, photo in load_images(photos, folder):
            square = ImageOps.fit(photo, (min(photo.size),) * 2)
            pixels = square_pixels(square, generator.image_px)
            ids.append(image_id)
            latents.append(generator.encode(pixels[None].float() / 255).cpu())
            signatures.append(_signature(pixels.permute(1, 2, 0).numpy()))
        return cls(config, generator, tuple(ids), torch.cat(latents), np.stack(signatures))

    def sample(
        self,
        prompts: list[str],
        seeds: list[int],
        num_inference_steps: int,
        backprop_steps: int = 0,
        stop_after: int | None = None,
    ) -> Tensor:
        """(B, 3, P, P) float32 in [0, 1], see `generators.Sampler`.

        Raises: ValueError for what only tuning asks for.
        """
        if backprop_steps or stop_after not in (None, num_inference_steps):
            raise ValueError("tuning draws from noise: set backprop_steps to 0 and stop_after to None")
        latents = self.latents[[self._number(seed) for seed in seeds]]
        return self.generator.sample_from(latents, self.config.strength, prompts, seeds, num_inference_steps)

    def origin(self, seed: int, pixels: np.ndarray) -> dict[str, str | float | bool]:
        """Return the values of PHOTO_COLUMNS for an image, (P, P, 3) uint8, that was drawn with this seed."""
        number = self._number(seed)
        similarity = float(_signature(pixels) @ self.signatures[number])
        values = (self.ids[number], similarity, similarity >= self.config.near_duplicate)
        return dict(zip(PHOTO_COLUMNS, values, strict=True))

    def _number(self, seed: int) -> int:
        return sample_seed("photo", seed) % len(self.ids)


def _signature(pixels: np.ndarray) -> np.ndarray:
    return signature(Image.fromarray(pixels))
