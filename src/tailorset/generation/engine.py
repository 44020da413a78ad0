"""Engines: they draw the shards of a round, in this process or elsewhere, and find the finished ones on the shelf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tailorset.clip.scorer import passes
from tailorset.compute import processes
from tailorset.generation.quota import QuotaPlanner
from tailorset.generation.studio import PlannedShard, Row, Samples, Studio
from tailorset.records import COPIES


@dataclass(frozen=True)
class Shard:
    """A finished shard: one manifest row per image, and whether the image counts toward the quota (a copy does not).

    found: taken from the shelf instead of being drawn now.
    """

    name: str
    rows: list[Row]
    passed: list[bool]
    found: bool


@dataclass(frozen=True)
class Shelf:
    """The finished shards of a run: those that an interrupted run left, and those that are added.

    unseen: labels whose images count toward a quota; empty = every image counts, whatever it was asked to show.
    rows_of: rows of a shard that is stored whole, or None. keep: is called with name, rows and samples of a new shard.
    """

    unseen: Sequence[str]
    quota_threshold: float
    rows_of: Callable[[str], list[Row] | None] = lambda name: None
    keep: Callable[[str, list[Row], Samples], object] = lambda name, rows, samples: None

    def find(self, plan: PlannedShard) -> Shard | None:
        """Return a finished shard, unless it holds other images than planned."""
        rows = self.rows_of(plan.name)
        if rows is None or [row["image_id"] for row in rows] != [draw.image_id for draw in plan.draws]:
            return None
        return self._shard(plan.name, rows, found=True)

    def add(self, name: str, rows: list[Row], samples: Samples) -> Shard:
        self.keep(name, rows, samples)
        return self._shard(name, rows, found=False)

    def _shard(self, name: str, rows: list[Row], found: bool) -> Shard:
        shown = passes(rows, self.unseen, self.quota_threshold).tolist() if self.unseen else [True] * len(rows)
        passed = [shows and not row.get(COPIES) for shows, row in zip(shown, rows, strict=True)]
        return Shard(name, rows, passed, found)


class Engine(Protocol):
    """Draws shards; batch_size: images at once, as memory allows."""

    @property
    def batch_size(self) -> int: ...

    def shards(self, plans: Sequence[PlannedShard], shelf: Shelf) -> Iterator[Shard]:
        """Yield all shards of a round in their order, those on the shelf as they are."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """Draws in this process.

    Several processes draw one shard each at a time and find the rest on the shelf; each process yields all shards.

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
                    raise ValueError(
                        f"{plan.name}, drawn by another process, is not here: give all processes the same .work folder"
                    )
                yield made

    def _drawn(self, plan: PlannedShard, shelf: Shelf) -> Shard:
        return shelf.add(plan.name, *self.studio.draw_shard(plan, self.on_batch))


def generate_shards(engine: Engine, planner: QuotaPlanner, shard_size: int, shelf: Shelf) -> Iterator[Shard]:
    """Yield shard after shard until every label has its quota or the budget is spent.

    A round is recorded in `planner` before its last shard is yielded.
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
