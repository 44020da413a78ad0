"""Draw candidates for the unseen labels and score each of them in memory.

Shapes: B images of a batch, U unseen labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tailorset.clip.model import CLIP_MEMORY_REMEDY, Clip
from tailorset.compute.memory import ShrinkingBatches
from tailorset.generation.quota import Draw
from tailorset.generation.source_photos import SourcePhotos
from tailorset.generators import Sampler
from tailorset.images.codec import encode_png
from tailorset.seeding import sample_seed
from tailorset.storage.shards import sha256

Row = dict[str, Any]  # one row of the synthetic manifest
Samples = list[tuple[str, bytes]]  # (image_id, PNG) of a shard's images

DRAWING_MEMORY_REMEDY = "lower generator.image_px, or set generator.vae_tiling and dtype: bfloat16"


class PlannedShard(NamedTuple):
    """A shard's name, and the images it will hold."""

    name: str
    draws: Sequence[Draw]


@dataclass
class Studio:
    """Draws and scores batches; the text features of both CLIPs are computed once.

    When memory runs out, batches get smaller: the images stay the same. photos: to start from; None = from noise.

    Raises: ValueError for an image with a pixel that is not finite, MemoryError where a single image does not fit.
    """

    generator: Sampler
    discriminator: Clip
    judge: Clip
    unseen: Sequence[str]
    prompt_template: str
    base_seed: int
    num_inference_steps: int
    batch_size: int
    photos: SourcePhotos | None = None
    drawing: ShrinkingBatches = field(init=False, repr=False)
    scoring: ShrinkingBatches = field(init=False, repr=False)
    _text_features: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.drawing = ShrinkingBatches(self.batch_size, "drawing", DRAWING_MEMORY_REMEDY)
        self.scoring = ShrinkingBatches(self.batch_size, "scoring", CLIP_MEMORY_REMEDY)
        names, template = list(self.unseen), self.prompt_template
        with torch.no_grad():
            self._text_features = (
                self.discriminator.encode_texts(names, template),
                self.judge.encode_texts(names, template),
            )

    def seed(self, draw: Draw) -> int:
        return sample_seed(self.base_seed, draw.prompt.prompt_id, draw.index)

    @torch.no_grad()
    def pixels(self, draws: Sequence[Draw]) -> Tensor:
        """(B, 3, H, W) uint8 images of the draws, on the CPU in one layout: rounding of sums depends on it."""
        images = (self.photos or self.generator).sample(
            [draw.prompt.text for draw in draws], [self.seed(draw) for draw in draws], self.num_inference_steps
        )
        finite = images.isfinite().flatten(1).all(1).tolist()
        if not all(finite):
            broken = [draw.image_id for draw, is_finite in zip(draws, finite, strict=True) if not is_finite]
            raise ValueError(f"the generator drew pixels that are not finite: {broken}; set generator.dtype: float32")
        pixels = images.float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
        return pixels.contiguous()

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(B, U) float32 logits by discriminator and by judge, of the pixels as they are stored."""
        images = pixels.to(self.discriminator.device).float() / 255
        of_discriminator, of_judge = self._text_features
        return (
            self.discriminator.logits(images, of_discriminator).float().cpu().numpy(),
            self.judge.logits(images, of_judge).float().cpu().numpy(),
        )

    def draw_shard(
        self, plan: PlannedShard, on_batch: Callable[[int], object] = lambda num_images: None
    ) -> tuple[list[Row], Samples]:
        """Return manifest rows and samples; `on_batch` is called with each batch's size.

        Scores round differently in batches of another size, so they are computed apart from drawing, whose batches may
        shrink.
        """
        name, draws = plan
        drawn: list[Tensor] = []
        encoded: list[Future[bytes]] = []
        with ThreadPoolExecutor() as pool:  # a batch is encoded while the next is drawn
            for part, images in self.drawing.over(len(draws), lambda part: self.pixels(draws[part])):
                drawn.append(images)
                encoded += [pool.submit(encode_png, array) for array in images.permute(0, 2, 3, 1).numpy()]
                on_batch(part.stop - part.start)
        pixels = torch.cat(drawn)
        pngs = [png.result() for png in encoded]
        rows: list[Row] = []
        for part, scores in self.scoring.over(len(draws), lambda part: self.logits(pixels[part])):
            arrays = pixels[part].permute(0, 2, 3, 1).numpy()  # (B, H, W, 3)
            for draw, array, png, *logits in zip(draws[part], arrays, pngs[part], *scores, strict=True):
                row = manifest_row(name, draw, self.seed(draw), array, png, *logits)
                rows.append(row | self.photos.origin(self.seed(draw), array) if self.photos else row)
        return rows, [(draw.image_id, png) for draw, png in zip(draws, pngs, strict=True)]


def manifest_row(
    shard: str, draw: Draw, seed: int, pixels: np.ndarray, png: bytes, discriminator: np.ndarray, judge: np.ndarray
) -> Row:
    """Return the row of one image.

    pixels: (H, W, 3) uint8, whose mean and deviation are stored on the scale [0, 1]. discriminator, judge: (U,) logits.
    """
    return {
        "image_id": draw.image_id,
        "prompt_id": draw.prompt.prompt_id,
        "prompt": draw.prompt.text,
        "labels": list(draw.prompt.labels),
        "seed": seed,
        "shard": shard,
        "sha256": sha256(png),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "pixel_mean": float(pixels.mean() / 255),
        "pixel_std": float(pixels.std() / 255),
        "discriminator_logits": discriminator.tolist(),
        "judge_logits": judge.tolist(),
    }
