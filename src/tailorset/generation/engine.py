"""Draw candidates for the unseen labels in rounds and score each of them in memory.

Letters: B images in a batch, N images of a shard, U unseen labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tailorset.clip.model import MEMORY_REMEDY as CLIP_REMEDY
from tailorset.clip.scorer import passes
from tailorset.compute import processes
from tailorset.compute.memory import ShrinkingBatches
from tailorset.generation.quota import Draw, QuotaPlanner
from tailorset.images.codec import encode_png
from tailorset.records import SYNTHETIC_COLUMNS
from tailorset.seeding import sample_seed
from tailorset.storage.shards import sha256

Row = dict[str, Any]  # one row of the synthetic manifest
Samples = list[tuple[str, bytes]]  # (image_id, PNG) of a shard's images

_TYPES = {
    "labels": pa.list_(pa.string()),
    "seed": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "pixel_mean": pa.float64(),
    "pixel_std": pa.float64(),
    "discriminator_logits": pa.list_(pa.float32()),
    "judge_logits": pa.list_(pa.float32()),
}
MANIFEST_SCHEMA = pa.schema([(name, _TYPES.get(name, pa.string())) for name in SYNTHETIC_COLUMNS])


REMEDY = "lower generator.image_px, or set generator.vae_tiling and dtype: bfloat16"


class Sampler(Protocol):
    """The part of a generator plug-in that this module calls."""

    def sample(self, prompts: list[str], seeds: list[int], num_inference_steps: int) -> Tensor: ...


class Scorer(Protocol):
    """The part of `clip.Clip` that this module calls."""

    device: torch.device

    def encode_texts(self, names: Sequence[str], template: str) -> Tensor: ...
    def logits(self, images: Tensor, text_features: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Shard:
    """A finished shard: per image a manifest row and whether it counts toward the quota.

    found: it lay there finished, and was not drawn now.
    """

    name: str
    rows: list[Row]
    passed: list[bool]
    found: bool


class PlannedShard(NamedTuple):
    """A shard's name, and the images it is to hold."""

    name: str
    draws: Sequence[Draw]


@dataclass
class Studio:
    """Draws and scores batches; the text features of both CLIPs are computed once.

    Where memory runs out, batches get smaller: the images stay the same.

    Raises: ValueError for an image with a pixel that is not finite, MemoryError where a single image does not fit.
    """

    generator: Sampler
    discriminator: Scorer
    judge: Scorer
    unseen: Sequence[str]
    prompt_template: str
    base_seed: int
    num_inference_steps: int
    batch_size: int
    drawing: ShrinkingBatches = field(init=False, repr=False)
    scoring: ShrinkingBatches = field(init=False, repr=False)
    _text_features: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.drawing = ShrinkingBatches(self.batch_size, "drawing", REMEDY)
        self.scoring = ShrinkingBatches(self.batch_size, "scoring", CLIP_REMEDY)
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
        """(B, 3, H, W) uint8 images of the draws, on the CPU in one layout: sums round by the order in memory."""
        images = self.generator.sample(
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
        """(B, U) float32 logits by discriminator and judge, of the pixels as they are stored."""
        images = pixels.to(self.discriminator.device).float() / 255
        of_discriminator, of_judge = self._text_features
        return (
            self.discriminator.logits(images, of_discriminator).float().cpu().numpy(),
            self.judge.logits(images, of_judge).float().cpu().numpy(),
        )

    def draw_shard(
        self, plan: PlannedShard, on_batch: Callable[[int], object] = lambda num_images: None
    ) -> tuple[list[Row], Samples]:
        """Manifest rows and samples; `on_batch` hears the size of each batch.

        Scores are rounded differently in batches of another size: so smaller batches for drawing leave them alone.
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
                rows.append(manifest_row(name, draw, self.seed(draw), array, png, *logits))
        return rows, [(draw.image_id, png) for draw, png in zip(draws, pngs, strict=True)]


def manifest_row(
    shard: str, draw: Draw, seed: int, pixels: np.ndarray, png: bytes, discriminator: np.ndarray, judge: np.ndarray
) -> Row:
    """pixels: (H, W, 3) uint8, their mean and deviation on the scale [0, 1]; discriminator, judge: (U,) logits."""
    return {
        "image_id": draw.image_id,
        "prompt_id": draw.prompt.prompt_id,
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


@dataclass(frozen=True)
class Shelf:
    """The finished shards of a run: those that an interrupted one left, and those which are added.

    rows_of: rows of a shard that lies there whole, or None. keep: is given name, rows and samples of what was drawn.
    """

    unseen: Sequence[str]
    quota_threshold: float
    rows_of: Callable[[str], list[Row] | None] = lambda name: None
    keep: Callable[[str, list[Row], Samples], object] = lambda name, rows, samples: None

    def find(self, plan: PlannedShard) -> Shard | None:
        """A finished shard, unless it holds other images than planned."""
        rows = self.rows_of(plan.name)
        if rows is None or [row["image_id"] for row in rows] != [draw.image_id for draw in plan.draws]:
            return None
        return self._shard(plan.name, rows, found=True)

    def add(self, name: str, rows: list[Row], samples: Samples) -> Shard:
        self.keep(name, rows, samples)
        return self._shard(name, rows, found=False)

    def _shard(self, name: str, rows: list[Row], found: bool) -> Shard:
        return Shard(name, rows, passes(rows, self.unseen, self.quota_threshold).tolist(), found)


class Engine(Protocol):
    """Where shards are drawn; batch_size: images at once, as memory allows."""

    @property
    def batch_size(self) -> int: ...

    def shards(self, plans: Sequence[PlannedShard], shelf: Shelf) -> Iterator[Shard]:
        """All shards of a round in their order, those on the shelf as they are."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """Draws in this process; several processes draw one shard each at a time, find the others' on the shelf, and all
    yield all shards.

    on_batch: called with the number of images of each batch, for progress.
    """

    studio: Studio
    on_batch: Callable[[int], object] = lambda num_images: None

    @property
    def batch_size(self) -> int:
        return self.studio.drawing.size

    def shards(self, plans: Sequence[PlannedShard], shelf: Shelf) -> Iterator[Shard]:
        for start in range(0, len(plans), processes.world_size()):
            wave = plans[start : start + processes.world_size()]
            own = {plan.name: shelf.find(plan) or self._drawn(plan, shelf) for plan in wave[processes.rank() :][:1]}
            processes.barrier()
            for plan in wave:
                made = own.get(plan.name) or shelf.find(plan)
                if made is None:
                    name = plan.name
                    raise ValueError(f"{name} of another process is not here: all processes need the same .work folder")
                yield made

    def _drawn(self, plan: PlannedShard, shelf: Shelf) -> Shard:
        return shelf.add(plan.name, *self.studio.draw_shard(plan, self.on_batch))


def generate_shards(engine: Engine, planner: QuotaPlanner, shard_size: int, shelf: Shelf) -> Iterator[Shard]:
    """Yield shard after shard until every label has its quota or the budget is spent.

    `planner` has counted every round whose last shard was taken from the iterator.
    """
    num_shards = 0
    while draws := planner.plan_round():
        passed: list[bool] = []
        parts = [draws[start : start + shard_size] for start in range(0, len(draws), shard_size)]
        plans = [PlannedShard(f"synthetic-{number:05d}.tar", part) for number, part in enumerate(parts, num_shards)]
        for shard in engine.shards(plans, shelf):
            passed += shard.passed
            if len(passed) == len(draws):
                planner.record(draws, passed)
            yield shard
        num_shards += len(parts)
