"""Captions without a captioning model: of given scenes, the one that a CLIP finds most like the photo."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from tailorset.clip.model import CLIP_MEMORY_REMEDY, Clip, OpenClip
from tailorset.compute.memory import ShrinkingBatches
from tailorset.messages import Strict

SCENES = (
    "in a living room",
    "in a kitchen",
    "in an office",
    "in a shop",
    "in a workshop",
    "on a wooden table",
    "against a plain wall",
    "on a city street",
    "in a park with green grass",
    "in a forest",
    "on a sandy beach",
    "by the sea",
    "in the snow",
    "in the mountains",
    "in a field under a clear sky",
    "in the dark at night",
)


class Config(Strict):
    """scenes: wordings that follow the name of a thing. clip: better not the discriminator or the judge."""

    clip: OpenClip
    scenes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=SCENES, min_length=2)
    batch_size: int = Field(default=64, gt=0)


class RankedScenes:
    """The text features of the scenes are computed once."""

    def __init__(self, config: Config, clip: Clip) -> None:
        self.clip, self.scenes, self.batch_size = clip, config.scenes, config.batch_size
        self.batches = ShrinkingBatches(config.batch_size, "captioning photos", CLIP_MEMORY_REMEDY)
        self._text_features = clip.encode_texts(config.scenes, "a photo {}")

    def caption(self, photos: list[Image.Image]) -> list[str]:
        """Return the best scene of each photo, which is looked at alone: photos differ in size."""
        parts = self.batches.over(len(photos), lambda part: [self._best(photo) for photo in photos[part]])
        return [self.scenes[number] for _, numbers in parts for number in numbers]

    @torch.no_grad()
    def _best(self, photo: Image.Image) -> int:
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255
        return int(self.clip.logits(pixels, self._text_features)[0].argmax())


def build(config: Config, device: torch.device) -> RankedScenes:
    """Load the CLIP.

    Raises:
        ValueError: it cannot be loaded.
    """
    return RankedScenes(config, config.clip.load(device))
