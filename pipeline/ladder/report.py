"""Tables, plots and pages of the ladder from the points' test scores: every row on the same resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan
from pathlib import Path

import pandas as pd
import torch
from measure import is_measured, read_metrics
from pages import ASIDE, MEASURES, curves_figure, ladder_figure, results_page, with_summary
from points import FULL, RESULTS, SEEN, SUPERVISED, Ladder, Point, load_ladder
from torch import Tensor

from tailorset.bootstrap import (
    Estimate,
    Interval,
    Resamples,
    average_precision_replicates,
    draw_resamples,
    estimate,
    f1_at_k,
    gap_closed,
    mean_average_precision,
    paired_difference,
    whole_set,
)
from tailorset.clip import normalise_scores
from tailorset.metrics import column_indices
from tailorset.params import flatten, read_yaml
from tailorset.records import LabelSpace
from tailorset.stage import write_json

REPORT = Path("reports/ladder")
PAGE, PICTURES, README = Path("docs/results.md"), Path("docs/pictures"), Path("README.md")
FROM_CLIP = ("clip_ensemble", "clip_normalised", "seen_prompts")  # steps from raw CLIP, not from each other
BOUNDS = ("supervised", SUPERVISED)  # the stronger one counts
BASELINES = {"clip": "raw CLIP", "clip_ensemble": "template-ensemble CLIP", "clip_normalised": "score-normalised CLIP"}


class WorldScores:
    """Test scores of every row of one world, and what is measured on them."""

    def __init__(self, ladder: Ladder, world: str) -> None:
        self.ladder, self.world = ladder, world
        self.label_space = LabelSpace.load(ladder.worlds[world].label_space)
        self.unseen = column_indices(self.label_space, self.label_space.unseen)
        points = {name: [ladder.rung_point(world, name, seed) for seed in self.seeds] for name in ladder.rungs}
        self.points = {name: found for name, found in points.items() if all(map(is_measured, found))}
        if FULL not in self.points:
            return
        self.image_ids, self.targets = test_targets(self.points[FULL][0], self.label_space)
        self.resamples = draw_resamples(len(self.seeds), len(self.targets), ladder.num_resamples, seed=0)
        self.rows = {name: self.scores(self.points[FULL][:1], name) for name in BASELINES}
        self.rows |= {name: self.scores(found) for name, found in self.points.items()}
        self.estimates = {name: self.measure(name, scores, self.resamples) for name, scores in self.rows.items()}

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.ladder.worlds[self.world].seeds

    def scores(self, points: Sequence[Point], method: str = "ours") -> Tensor:
        """(S, N, L) scores of a row's seeds, images in the order of `image_ids`."""
        per_seed = []
        for point in points:
            table = pd.read_parquet(point.folder / "scores.parquet")
            rows = table[table["method"] == method].set_index("image_id").loc[self.image_ids]
            per_seed.append(torch.from_numpy(rows[list(self.label_space.names)].to_numpy(copy=True)))
        return torch.stack(per_seed)

    def measure(self, name: str, scores: Tensor, resamples: Resamples) -> dict[str, Estimate]:
        """The four measures of a row; normalisation, where the row has it, sees the columns that are compared."""
        found = {}
        for setting, columns in (("zsl", self.unseen), ("gzsl", list(range(len(self.label_space.names))))):
            compared = scores[..., columns]
            if name == "clip_normalised":
                compared = torch.stack([normalise_scores(matrix) for matrix in compared])
            for key, measure in (("map", mean_average_precision), ("f1", f1_at_k)):
                found[f"{setting}_{key}"] = estimate(measure, compared, self.targets[:, columns], resamples)
        return found

    def table(self) -> pd.DataFrame:
        """One row a rung: every measure with its interval, and the step from the rung below (or raw CLIP) in ZSL mAP.

        A rung that has not been run is a row of its names only, and no step is measured from it.
        """
        titles = BASELINES | {name: rung.title for name, rung in self.ladder.rungs.items()}
        rows, below = [], ""
        for name, title in titles.items():
            row: dict[str, object] = {"world": self.world, "row": name, "title": title}
            for key, value in self.estimates.get(name, {}).items():
                row |= columns_of(key, value.interval(self.ladder.level))
            if name not in ASIDE:
                row |= columns_of("step", self.difference(name, "clip" if name in FROM_CLIP else below))
            rows.append(row)
            below = name
        return pd.DataFrame(rows)

    def difference(self, ours: str, other: str, measure: str = "zsl_map") -> Interval:
        """Paired; NaN where one of the two has not been run."""
        if ours not in self.estimates or other not in self.estimates:
            return Interval(nan, nan, nan)
        return paired_difference(self.estimates[ours][measure], self.estimates[other][measure], self.ladder.level)

    def components(self) -> pd.DataFrame:
        """What each component brings: a rung minus the same without it, ZSL and GZSL mAP."""
        rows = []
        for name, (ours, other) in self.ladder.components.items():
            row: dict[str, object] = {"world": self.world, "component": name, "with": ours, "without": other}
            for measure in ("zsl_map", "gzsl_map"):
                row |= columns_of(measure, self.difference(ours, other, measure))
            rows.append(row)
        return pd.DataFrame(rows)

    def gap(self) -> Interval | None:
        """Share of the way from raw CLIP to full supervision; None where no such way is measurable."""
        bounds = [self.estimates[name]["zsl_map"] for name in BOUNDS if name in self.estimates]
        if not bounds:
            return None
        ours, raw = (self.estimates[name]["zsl_map"] for name in (FULL, "clip"))
        bound = max(bounds, key=lambda estimate: estimate.value)
        try:
            return gap_closed(ours, raw, bound, self.ladder.level)
        except ValueError:
            return None

    def per_label(self) -> pd.DataFrame:
        """Average precision of each unseen label in some rows, and what generated images bring it: full minus seen."""
        shown = [name for name in ("clip", SEEN, FULL, SUPERVISED) if name in self.rows]
        targets, level = self.targets[:, self.unseen], self.ladder.level
        values, replicates = {}, {}
        for name in shown:
            scores = self.rows[name][..., self.unseen]
            everything = whole_set(self.resamples.num_seeds, len(targets))
            values[name] = average_precision_replicates(scores, targets, everything)[0]
            replicates[name] = average_precision_replicates(scores, targets, self.resamples)
        rows = []
        for column, label in enumerate(self.label_space.unseen):
            estimates = {name: Estimate(float(values[name][column]), replicates[name][:, column]) for name in shown}
            if SEEN not in estimates:
                continue
            gain = paired_difference(estimates[FULL], estimates[SEEN], level)
            row = {"world": self.world, "label": label} | {name: estimates[name].value for name in shown}
            rows.append(row | {"difference": gain.value, "low": gain.low, "high": gain.high})
        return pd.DataFrame(rows)

    def curves(self, settings: Mapping[str, float]) -> pd.DataFrame:
        """ZSL mAP along each setting; its value in `settings` is the full rung with the curve's seeds."""
        curves = self.ladder.curves
        resamples = draw_resamples(len(curves.seeds), len(self.targets), self.ladder.num_resamples, seed=0)
        full = [self.ladder.rung_point(self.world, FULL, seed) for seed in curves.seeds]
        rows = []
        for key in curves.settings:
            points = self.ladder.curve_points(key)
            values = {
                value: [point for point in points if point.settings[key] == value] for value in curves.settings[key]
            }
            for value, found in sorted((values | {settings[key]: full}).items()):
                row: dict[str, object] = {"setting": key, "value": value}
                if all(map(is_measured, found)):
                    maps = [self.measure(key, self.scores([point]), resamples)["zsl_map"].value for point in found]
                    row |= {"zsl_map": sum(maps) / len(maps), "zsl_map_low": min(maps), "zsl_map_high": max(maps)}
                rows.append(row)
        return pd.DataFrame(rows, columns=["setting", "value", *columns_of("zsl_map", Interval(0, 0, 0))])


def test_targets(point: Point, label_space: LabelSpace) -> tuple[list[str], Tensor]:
    """Ids of the test photographs and their targets (N, L)."""
    table = pd.read_parquet(point.folder / "targets.parquet").set_index("image_id")
    return list(table.index), torch.from_numpy(table[list(label_space.names)].to_numpy("int8", copy=True))


def columns_of(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def image_counts(world: WorldScores) -> pd.DataFrame:
    """Generated images of each rung, means over the seeds: drawn, kept, and what judge and oracle say of the kept."""
    keys = {
        "drawn": "generate/images", "kept": "filter/kept", "trained_on": "num_synthetic_images",
        "judge_precision": "filter/judge_precision", "oracle_precision": "filter/oracle_precision",
    }  # fmt: skip
    rows = []
    for name, points in world.points.items():
        found = pd.DataFrame(map(read_metrics, points))
        if found["num_synthetic_images"].gt(0).any():
            means = {column: found[key].mean() for column, key in keys.items() if key in found}
            rows.append({"world": world.world, "row": name} | means)
    return pd.DataFrame(rows)


def main() -> None:
    ladder = load_ladder()
    for folder in (REPORT, PICTURES):
        folder.mkdir(parents=True, exist_ok=True)
    found = {name: WorldScores(ladder, name) for name in ladder.worlds}
    worlds = {name: world for name, world in found.items() if FULL in world.points}
    if ladder.first_world not in worlds:
        raise ValueError(f"{RESULTS / ladder.first_world} lacks the rung {FULL!r}: run `make ladder`")
    tables = {
        "ladder": pd.concat([world.table() for world in worlds.values()]),
        "components": pd.concat([world.components() for world in worlds.values()]),
        "per_label": pd.concat([world.per_label() for world in worlds.values()]),
        "images": pd.concat([image_counts(world) for world in worlds.values()]),
        "curves": worlds[ladder.first_world].curves(flatten(read_yaml("params.yaml")) | ladder.base),
    }
    gaps = {name: world.gap() for name, world in worlds.items()}
    for name, table in tables.items():
        table.to_csv(REPORT / f"{name}.csv", index=False, float_format="%.6f")
    ladder_figure(tables["ladder"]).savefig(PICTURES / "ladder.png", dpi=120)
    curves_figure(tables["curves"]).savefig(PICTURES / "ladder_curves.png", dpi=120)
    write_json(REPORT / "metrics.json", flat_metrics(tables["ladder"], gaps))
    PAGE.write_text(results_page(ladder, tables, gaps), encoding="utf-8")
    README.write_text(with_summary(README.read_text(encoding="utf-8"), tables, gaps), encoding="utf-8")


def flat_metrics(table: pd.DataFrame, gaps: dict[str, Interval | None]) -> dict[str, float]:
    """The ladder's rows under flat names, as every other metrics.json has them."""
    values = {f"{row.world}/{row.row}/{key}": getattr(row, key) for row in table.itertuples() for key in MEASURES}
    metrics = {key: value for key, value in values.items() if not isnan(value)}
    return metrics | {f"{world}/gap_closed": gap.value for world, gap in gaps.items() if gap}


if __name__ == "__main__":
    main()
