"""Typed settings of the ladder, the points it consists of, and the paths its two stages share."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator
from workspace import merged

from tailorset.card.verdicts import COMPARE, MEASURED_DATA_SET
from tailorset.project.params import check_params, flatten, read_yaml
from tailorset.settings import Block

PARAMS = Path("pipeline/ladder/params.yaml")
RESULTS = Path("data/ladder")  # <world or curves>/<point>/seed-<seed>/
REPORT = Path("reports/ladder")  # <world or curves>/<table>.csv
CURVES, FACTORS = "curves", "factors"  # the parts of the ladder that are not worlds
FULL, SEEN, SUPERVISED = "full", "seen", "supervised_residual"  # the rungs that figures are taken from by name
BOUNDS = ("supervised", SUPERVISED, "supervised_probe", "supervised_tuned")  # all labels annotated; the best one counts
# Rows that are not a step up from the previous one
ASIDE = ("clip", "tuned_text_encoder", "without_fusion", "generated_only", *BOUNDS)


class World(Block):
    label_space: Path
    seeds: tuple[int, ...] = Field(min_length=1)


class Rung(Block):
    title: str
    settings: dict[str, Any]


class Curves(Block):
    seeds: tuple[int, ...]
    settings: dict[str, tuple[float, ...]]


class Factors(Block):
    seeds: tuple[int, ...] = Field(min_length=1)
    rows: dict[str, Rung]


class Point(NamedTuple):
    """One run of the pipeline: params.yaml with `settings` ({dotted key: value}) and `seed`; photos keep their seed."""

    part: str  # a world, the curves or the factors
    name: str
    seed: int
    settings: dict[str, Any]

    @property
    def folder(self) -> Path:
        return RESULTS / self.part / self.name / f"seed-{self.seed}"

    @property
    def run_name(self) -> str:
        """Name of the point's parent run in MLflow."""
        return f"ladder-{self.part}-{self.name}-{self.seed}"


class Ladder(Block):
    num_workers: int = Field(ge=1)
    num_resamples: int = Field(ge=100)
    level: float = Field(gt=0, lt=1)
    oracle: Path | None
    worlds: dict[str, World] = Field(min_length=1)
    base: dict[str, Any]
    rungs: dict[str, Rung]
    components: dict[str, tuple[str, str]]
    curves: Curves
    factors: Factors

    @model_validator(mode="after")
    def _rungs_exist(self) -> Self:
        named = {FULL, SEEN, *BOUNDS} | {rung for pair in self.components.values() for rung in pair}
        if missing := sorted(named - set(self.rungs)):
            raise ValueError(f"rungs {missing} are needed but not listed: add them to `rungs` ({list(self.rungs)})")
        return self

    @property
    def first_world(self) -> str:
        """The world of the curves and of the factors."""
        return next(iter(self.worlds))

    def settings_of(self, world: str, rung: str) -> dict[str, Any]:
        """Changes of a rung to params.yaml, {dotted key: value}."""
        return {"label_space": str(self.worlds[world].label_space)} | self.base | self.rungs[rung].settings

    def points(self, part: str) -> list[Point]:
        """Every point of a world, those of the curves, or those of the factors.

        Seeds follow each other within a point, so that parallel processes seldom wait for the same product.

        Raises:
            ValueError: the ladder has no such part.
        """
        if part == CURVES:
            return self.full_points(part) + [point for key in self.curves.settings for point in self.curve_points(key)]
        if part == FACTORS:
            return self.full_points(part) + [point for row in self.factors.rows for point in self.factor_points(row)]
        if part not in self.worlds:
            raise ValueError(f"{part!r} is not a part of the ladder: choose from {[*self.worlds, CURVES, FACTORS]}")
        return [self.rung_point(part, rung, seed) for rung in self.rungs for seed in self.worlds[part].seeds]

    def rung_point(self, world: str, rung: str, seed: int) -> Point:
        return Point(world, rung, seed, self.settings_of(world, rung))

    def seeds(self, part: str) -> tuple[int, ...]:
        others = {CURVES: self.curves.seeds, FACTORS: self.factors.seeds}
        return others[part] if part in others else self.worlds[part].seeds

    def full_points(self, part: str) -> list[Point]:
        """The points that curves or factors are compared with: the first world's full rung."""
        return [Point(part, FULL, seed, self.settings_of(self.first_world, FULL)) for seed in self.seeds(part)]

    def factor_points(self, row: str) -> list[Point]:
        """Return the full rung with the settings of a row, one point per seed."""
        settings = self.settings_of(self.first_world, FULL) | self.factors.rows[row].settings
        return [Point(FACTORS, row, seed, settings) for seed in self.factors.seeds]

    def curve_points(self, key: str) -> list[Point]:
        """All values of one setting, but for the one that `full` has."""
        full = self.settings_of(self.first_world, FULL)
        return [
            Point(CURVES, f"{key}={value:g}", seed, full | {key: type_of(value)})
            for value in self.curves.settings[key]
            for seed in self.curves.seeds
        ]


def type_of(value: float) -> float | int:
    """10.0 -> 10: counts stay counts."""
    return int(value) if value == int(value) else value


def load_ladder(path: Path = PARAMS) -> Ladder:
    """Read and check the ladder's settings.

    Raises:
        ValueError: a key is unknown to the ladder, a setting's key to params.yaml, a row of the factors is not valid,
            or params.yaml is not of the toybox.
    """
    ladder = Ladder.model_validate(read_yaml(path))
    params = read_yaml("params.yaml")
    known = flatten(params)
    if (name := known.get("prepare_dataset.name")) != MEASURED_DATA_SET:
        raise ValueError(
            f"The ladder measures the embedded toybox, and params.yaml is for the data set {name!r}: keep it elsewhere"
            f" and `tailorset use toybox`. For labels of your own, {COMPARE}."
        )
    changed = [ladder.base, ladder.curves.settings, *(rung.settings for rung in ladder.rungs.values())]
    named = [key for settings in changed for key in settings]
    if unknown := sorted(set(named) - set(known) - set(params)):
        raise ValueError(f"{path} sets {unknown}, which params.yaml does not have; its keys: {', '.join(known)}")
    for name, row in ladder.factors.rows.items():  # may set keys that are off where params.yaml does not have them
        check_params(merged(copy.deepcopy(params), ladder.base | row.settings), f"{path}, row {name!r} of factors,")
    return ladder


if __name__ == "__main__":  # `make ladder` checks this before DVC removes results
    try:
        load_ladder()
    except ValueError as error:
        sys.exit(str(error))
