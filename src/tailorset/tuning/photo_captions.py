"""Annotated photos with captions that are worded like the prompts from which images will be drawn.

Shapes: L labels, N photos, C x h x w latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tailorset.generators import PhotoGenerator
from tailorset.images.codec import square_pixels
from tailorset.progress import Bar
from tailorset.records import LabelSpace, Prompt
from tailorset.records.frames import Frame, frames_of
from tailorset.seeding import numpy_rng, pick, sample_seed
from tailorset.storage.image_set import AnnotatedRows, real_rows
from tailorset.storage.shards import load_images

UNET_MEMORY_REMEDY = "lower generator.image_px, or set generator.dtype: bfloat16"


class PhotoCaptions:
    """Captions made of written prompts, with a photo's labels in the place of those that a prompt requests.

    What else a prompt says, such as its scene, is not true of the photo. So the UNet learns to draw a photo's
    surroundings whatever the prompt says; by captions that only name labels it would learn nothing about prompts with
    a scene, which it then draws as before.

    Raises: ValueError if no prompt names each of its labels once.
    """

    def __init__(self, prompts: Sequence[Prompt], label_space: LabelSpace, seed: int) -> None:
        self.label_space, self.seed = label_space, seed
        self.columns = label_space.columns(label_space.seen)
        self.frames: dict[int, list[Frame]] = {}  # number of labels -> frames with as many gaps
        for frame in frames_of(prompts, label_space):
            self.frames.setdefault(frame.num_labels, []).append(frame)
        if not self.frames:
            raise ValueError(
                f"none of {len(prompts)} prompts names each of its labels once, so photos cannot be given captions"
                " like them: set tune_unet.num_updates to 0, or write other prompts"
            )

    def caption(self, targets: Tensor, image_id: str) -> str:
        """Return a caption that names seen labels of a photo, as many as prompts do; "" if it shows too few.

        targets: (L,), 1 where a label is present.
        """
        rng = numpy_rng(self.seed, "caption", image_id)
        shown = [name for name, column in zip(self.label_space.seen, self.columns, strict=True) if targets[column] == 1]
        size = max((size for size in self.frames if size <= len(shown)), default=0)
        if not size:
            return ""
        chosen = rng.permutation(shown)[:size].tolist()
        return pick(rng, self.frames[size]).fill(chosen, self.label_space)


@dataclass(frozen=True)
class CaptionedPhotos:
    """Latents (N, C, h, w) of photos on the CPU, and their captions; N is at least 1."""

    latents: Tensor
    captions: tuple[str, ...]


def photos_of_seen_labels(real: Path, label_space: LabelSpace, most: int, seed: int) -> AnnotatedRows:
    """Return photos of train that show a seen label, `most` of them at most, chosen by their ids and the seed.

    Raises:
        ValueError: no photo shows one.
    """
    rows, targets = real_rows(real, "train", label_space)
    shows = (targets[:, label_space.columns(label_space.seen)] == 1).any(1).tolist()
    numbers = [number for number, shows_one in enumerate(shows) if shows_one]
    if not numbers:
        raise ValueError(f"no photo of train in {real} shows a seen label: set tune_unet.num_updates to 0")
    ids = rows["image_id"].tolist()
    chosen = sorted(sorted(numbers, key=lambda number: sample_seed("photo of", seed, ids[number]))[:most])
    return rows.iloc[chosen], targets[torch.tensor(chosen)]


def captioned(
    photos: AnnotatedRows, folder: Path, captions: PhotoCaptions, generator: PhotoGenerator
) -> CaptionedPhotos:
    """Write a caption for each photo of a folder, and encode it, squashed to a square as the classifier sees it."""
    rows, targets = photos
    images = Bar(load_images(rows, folder), total=len(rows), desc="photos encoded", unit="photo")
    latents = [
        generator.encode(square_pixels(image, generator.image_px)[None].float() / 255).cpu() for _, image in images
    ]
    texts = [captions.caption(row, image_id) for image_id, row in zip(rows["image_id"], targets, strict=True)]
    return CaptionedPhotos(torch.cat(latents), tuple(texts))
