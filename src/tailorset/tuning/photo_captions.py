"""Annotated photos with captions that are worded like the prompts from which images will be drawn.

Shapes: L labels, N photos, C x h x w latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tailorset.compute.memory import ShrinkingBatches
from tailorset.generators import PhotoGenerator
from tailorset.records import LabelSpace, Prompt
from tailorset.seeding import numpy_rng, pick, sample_seed
from tailorset.storage.image_set import ImageSet, load_image_set, real_rows

ENCODED_AT_ONCE = 16
UNET_MEMORY_REMEDY = "lower generator.image_px, or set generator.dtype: bfloat16"
_GAP = "{}"


class PhotoCaptions:
    """Writes captions by putting a photo's labels in the place of those of a written prompt.

    What else a prompt says, such as its scene, is not true of the photo. So the UNet learns to draw a photo's
    surroundings whatever the prompt says; by captions that only name labels it would learn nothing about prompts with
    a scene, which it then draws as before.
    """

    def __init__(self, prompts: Sequence[Prompt], label_space: LabelSpace, seed: int) -> None:
        self.label_space, self.seed = label_space, seed
        self.frames: dict[int, list[str]] = {}  # number of labels -> texts of prompts with gaps for their names
        for prompt in prompts:
            text, named = label_space.without_names(prompt.text, _GAP)
            if len(named) == text.count(_GAP) == len(prompt.labels):
                self.frames.setdefault(len(named), []).append(text)

    def caption(self, targets: Tensor, image_id: str) -> str:
        """Return a caption that names one or two seen labels of a photo, of which it shows at least one.

        targets: (L,), 1 where a label is present.
        """
        rng = numpy_rng(self.seed, "caption", image_id)
        shown = [name for name in self.label_space.seen if targets[self.label_space.index(name)] == 1]
        chosen = rng.permutation(shown)[: max(self.frames)]
        return pick(rng, self.frames[len(chosen)]).format(*chosen)


@dataclass(frozen=True)
class CaptionedPhotos:
    """Latents (N, C, h, w) of photos on the CPU, and their captions; N is at least 1."""

    latents: Tensor
    captions: tuple[str, ...]


def photos_of_seen_labels(real: Path, label_space: LabelSpace, most: int, seed: int, image_px: int) -> ImageSet:
    """Decode photos of train that show a seen label, at most so many, chosen by their ids and the seed.

    They are squashed to squares, as the classifier sees them.

    Raises:
        ValueError: no photo shows one.
    """
    rows, targets = real_rows(real, "train", label_space)
    shows = (targets[:, [label_space.index(name) for name in label_space.seen]] == 1).any(1).tolist()
    numbers = [number for number, shows_one in enumerate(shows) if shows_one]
    if not numbers:
        raise ValueError(f"no photo of train in {real} shows a seen label: set tune_unet.num_updates to 0")
    ids = rows["image_id"].tolist()
    chosen = sorted(sorted(numbers, key=lambda number: sample_seed("photo of", seed, ids[number]))[:most])
    return load_image_set(rows.iloc[chosen], targets[torch.tensor(chosen)], real, image_px)


def captioned(photos: ImageSet, writer: PhotoCaptions, generator: PhotoGenerator) -> CaptionedPhotos:
    """Write a caption for each photo, and encode all of them once."""
    batches = ShrinkingBatches(ENCODED_AT_ONCE, "photos encoded", UNET_MEMORY_REMEDY)
    latents = batches.concatenated(lambda pixels: generator.encode(pixels.float() / 255), photos.images)
    captions = [writer.caption(row, image_id) for image_id, row in zip(photos.ids, photos.targets, strict=True)]
    return CaptionedPhotos(latents, tuple(captions))
