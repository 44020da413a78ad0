"""Typed settings of the ladder, the points it consists of, and the paths its two stages share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tailorset.params import flatten, read_yaml

PARAMS = Path("pipeline/ladder/params.yaml")
RESULTS = Path("data/ladder")  # <world>/<point>/seed-<seed>/
FULL, SEEN, SUPERVISED = "full", "seen", "supervised_residual"  # the rungs that figures are taken from by name


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class World(Settings):
    label_space: Path
    seeds: tuple[int, ...] = Field(min_length=1)


class Rung(Settings):
    title: str
    settings: dict[str, Any]


class Curves(Settings):
    seeds: tuple[int, ...]
    settings: dict[str, tuple[float, ...]]


class Point(NamedTuple):
    """One run of the pipeline: params.yaml with `settings` ({dotted key: value}) and `seed`, but for photographs."""

    world: str
    name: str
    seed: int
    settings: dict[str, Any]

    @property
    def folder(self) -> Path:
        return RESULTS / self.world / self.name / f"seed-{self.seed}"

    @property
    def run_name(self) -> str:
        """Name of the point's parent run in MLflow."""
        return f"ladder-{self.world}-{self.name}-{self.seed}"


class Ladder(Settings):
    num_workers: int = Field(ge=1)
    num_resamples: int = Field(ge=100)
    level: float = Field(gt=0, lt=1)
    oracle: Path | None
    worlds: dict[str, World] = Field(min_length=1)
    base: dict[str, Any]
    rungs: dict[str, Rung]
    components: dict[str, tuple[str, str]]
    curves: Curves

    @model_validator(mode="after")
    def _rungs_exist(self) -> Self:
        named = {FULL, SEEN, SUPERVISED} | {rung for pair in self.components.values() for rung in pair}
        if missing := sorted(named - set(self.rungs)):
            raise ValueError(f"rungs {missing} are needed but not listed: add them to `rungs` ({list(self.rungs)})")
        if unknown := sorted(set(self.curves.seeds) - set(self.first_world.seeds)):
            choices = list(self.first_world.seeds)
            raise ValueError(f"curves.seeds {unknown} are not among the first world's seeds: choose from {choices}")
        return self

    @property
    def first_world(self) -> World:
        """The world of the curves."""
        return next(iter(self.worlds.values()))

    def settings_of(self, world: str, rung: str) -> dict[str, Any]:
        """What a rung changes in params.yaml, {dotted key: value}."""
        return {"label_space": str(self.worlds[world].label_space)} | self.base | self.rungs[rung].settings

    def points(self, world: str) -> list[Point]:
        """Every point of a world; the points of a curve belong to the first world.

        Seeds follow each other within a point, so that processes side by side seldom wait for the same product.
        """
        seeds, first = self.worlds[world].seeds, next(iter(self.worlds))
        points = [Point(world, rung, seed, self.settings_of(world, rung)) for rung in self.rungs for seed in seeds]
        return points + (self._curve_points(world) if world == first else [])

    def _curve_points(self, world: str) -> list[Point]:
        full = self.settings_of(world, FULL)
        return [
            Point(world, f"{key}={value:g}", seed, full | {key: type_of(value)})
            for key, values in self.curves.settings.items()
            for value in values
            for seed in self.curves.seeds
        ]


def type_of(value: float) -> float | int:
    """10.0 -> 10: counts stay counts."""
    return int(value) if value == int(value) else value


def load_ladder(path: Path = PARAMS) -> Ladder:
    """Read and check the ladder's settings.

    Raises:
        ValueError: a key is unknown to the ladder, or a setting's key to params.yaml.
    """
    ladder = Ladder.model_validate(read_yaml(path))
    known = flatten(read_yaml("params.yaml"))
    changed = [ladder.base, ladder.curves.settings, *(rung.settings for rung in ladder.rungs.values())]
    named = [key for settings in changed for key in settings]
    if unknown := sorted(set(named) - set(known)):
        raise ValueError(f"{path} sets {unknown}, which params.yaml does not have; its keys: {', '.join(known)}")
    return ladder
