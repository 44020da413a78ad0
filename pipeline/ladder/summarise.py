"""Tables of one part of the ladder from its points' test scores, every row on the same resamples.

`python pipeline/ladder/summarise.py WORLD`, or `curves`, or `factors`, whose table is of val and is printed, too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from math import nan

import pandas as pd
import torch
from measure import METRICS, is_measured
from pages import factor_text
from points import ASIDE, BOUNDS, CURVES, FACTORS, FULL, REPORT, RESULTS, SEEN, SUPERVISED, Ladder, Point, load_ladder
from torch import Tensor

from tailorset.card.verdicts import deciding, file_digests
from tailorset.clip.model import normalise_scores
from tailorset.evaluation.bootstrap import (
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
from tailorset.project.execution import git_revision
from tailorset.project.params import flatten, read_yaml
from tailorset.records import LabelSpace
from tailorset.storage.files import atomic_output, read_metrics

FROM_CLIP = (
    "clip_ensemble",
    "clip_normalised",
    "clip_patches",
    "seen_prompts",
)  # steps from raw CLIP, not from each other
BASELINES = {
    "clip": "raw CLIP",
    "clip_ensemble": "template-ensemble CLIP",
    "clip_normalised": "score-normalised CLIP",
    "clip_patches": "CLIP with patches and crops",
}


CHOSEN = ("best_epoch", "interpolation", "cache_alpha", "cache_beta")  # by val, in each run


class WorldScores:
    """Test scores of every row of one world, and what is measured on them."""

    def __init__(self, ladder: Ladder, world: str) -> None:
        self.ladder, self.world = ladder, world
        self.label_space = LabelSpace.load(ladder.worlds[world].label_space)
        self.unseen = self.label_space.columns(self.label_space.unseen)
        points = {name: [ladder.rung_point(world, name, seed) for seed in self.seeds] for name in ladder.rungs}
        self.points = {name: found for name, found in points.items() if all(map(is_measured, found))}
        if FULL not in self.points:
            raise ValueError(f"{RESULTS / world} lacks the rung {FULL!r}: run `make ladder`")
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
        """The four measures of a row; normalisation, if the row has it, uses the columns that are compared."""
        found = {}
        for setting, columns in (("zsl", self.unseen), ("gzsl", list(range(len(self.label_space.names))))):
            compared = scores[..., columns]
            if name == "clip_normalised":
                compared = torch.stack([normalise_scores(matrix) for matrix in compared])
            for key, measure in (("map", mean_average_precision), ("f1", f1_at_k)):
                found[f"{setting}_{key}"] = estimate(measure, compared, self.targets[:, columns], resamples)
        return found

    def table(self) -> pd.DataFrame:
        """Return one row per rung: measures with intervals, and the step in ZSL mAP from the rung below (or raw CLIP).

        A rung that has not been run is a row of its names only, and no step is measured from it.
        """
        titles = BASELINES | {name: rung.title for name, rung in self.ladder.rungs.items()}
        rows, below = [], ""
        for name, title in titles.items():
            row: dict[str, object] = {"row": name, "title": title}
            for key, value in self.estimates.get(name, {}).items():
                row |= columns_of(key, value.interval(self.ladder.level))
            if name not in ASIDE:
                row |= columns_of("step", self.difference(name, "clip" if name in FROM_CLIP else below))
            rows.append(row)
            below = name
        return pd.DataFrame(rows)

    def difference(self, ours: str, other: str, measure: str = "zsl_map") -> Interval:
        """Return the paired difference of two rungs; NaN if one of them has not been run."""
        if ours not in self.estimates or other not in self.estimates:
            return Interval(nan, nan, nan)
        return paired_difference(self.estimates[ours][measure], self.estimates[other][measure], self.ladder.level)

    def components(self) -> pd.DataFrame:
        """Gain of each component in ZSL and GZSL mAP: a rung minus the same rung without it."""
        rows = []
        for name, (ours, other) in self.ladder.components.items():
            row: dict[str, object] = {"component": name, "with": ours, "without": other}
            for measure in ("zsl_map", "gzsl_map"):
                row |= columns_of(measure, self.difference(ours, other, measure))
            rows.append(row)
        return pd.DataFrame(rows)

    def gap(self) -> Interval | None:
        """Return the share of the gap from raw CLIP to the best bound that is closed; None if no gap is measurable."""
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
            row = {"label": label} | {name: estimates[name].value for name in shown}
            rows.append(row | {"difference": gain.value, "low": gain.low, "high": gain.high})
        return pd.DataFrame(rows)


def test_targets(point: Point, label_space: LabelSpace) -> tuple[list[str], Tensor]:
    """Ids of the test photos and their targets (N, L)."""
    table = pd.read_parquet(point.folder / "targets.parquet").set_index("image_id")
    return list(table.index), torch.from_numpy(table[list(label_space.names)].to_numpy("int8", copy=True))


def columns_of(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def metrics_of(points: Sequence[Point]) -> pd.DataFrame:
    """Return the metrics of each point, one per row."""
    return pd.DataFrame(read_metrics(point.folder / METRICS) for point in points)


def mean_and_range(name: str, values: pd.Series) -> dict[str, float]:
    return columns_of(name, Interval(values.mean(), values.min(), values.max()))


def image_counts(world: WorldScores) -> pd.DataFrame:
    """Generated images of each rung, means over the seeds: drawn, kept, confirmed by judge and oracle."""
    keys = {
        "drawn": "generate/images",
        "kept": "filter/kept",
        "trained_on": "num_synthetic_images",
        "judge_precision": "filter/judge_precision",
        "oracle_precision": "filter/oracle_precision",
    }
    rows = []
    for name, points in world.points.items():
        found = metrics_of(points)
        if found["num_synthetic_images"].gt(0).any():
            means = {column: found[key].mean() for column, key in keys.items() if key in found}
            if points[0].settings.get("filter_images.threshold") == 0:
                means["judge_precision"] = nan  # by the filter's rule, which then accepts everything
            rows.append({"row": name} | means)
    return pd.DataFrame(rows)


def curve_table(ladder: Ladder, settings: Mapping[str, float]) -> pd.DataFrame:
    """ZSL mAP along each setting, mean and range of the seeds; its value in `settings` is the full rung."""
    full = {key: ladder.full_points(CURVES) for key in ladder.curves.settings}
    rows = []
    for key, values in ladder.curves.settings.items():
        points = ladder.curve_points(key)
        found = {value: [point for point in points if point.settings[key] == value] for value in values}
        for value, same in sorted((found | {settings[key]: full[key]}).items()):
            row: dict[str, object] = {"setting": key, "value": value}
            if all(map(is_measured, same)):
                maps = [read_metrics(point.folder / METRICS)["zsl/map"] for point in same]
                row |= columns_of("zsl_map", Interval(sum(maps) / len(maps), min(maps), max(maps)))
            rows.append(row)
    return pd.DataFrame(rows, columns=["setting", "value", *columns_of("zsl_map", Interval(0, 0, 0))])


def factor_table(ladder: Ladder) -> pd.DataFrame:
    """ZSL and GZSL mAP of each factor on val, their change from the full rung, and what val chose in each run.

    Figures are means and ranges over the seeds; a change compares runs of the same seed.

    Raises:
        ValueError: the full rung has not been run.
    """
    full = ladder.full_points(FACTORS)
    if not all(map(is_measured, full)):
        raise ValueError(f"{RESULTS / FACTORS} lacks the rung {FULL!r}: run `make factors`")
    base = metrics_of(full)
    rows: list[dict[str, object]] = []
    for name in (FULL, *ladder.factors.rows):
        points = full if name == FULL else ladder.factor_points(name)
        row: dict[str, object] = {"row": name}
        if all(map(is_measured, points)):
            found = metrics_of(points)
            for key, metric in (("zsl_map", "val/zsl/map"), ("gzsl_map", "val/gzsl/map")):
                row |= mean_and_range(key, found[metric])
                row |= mean_and_range(f"{key}_change", found[metric] - base[metric])
            row |= {key: " ".join(f"{value:g}" for value in found[key]) for key in CHOSEN if key in found}
        rows.append(row)
    return pd.DataFrame(rows).reindex(columns=[*dict.fromkeys([*rows[0], *CHOSEN])])


def world_tables(ladder: Ladder, world: str) -> dict[str, pd.DataFrame]:
    """Tables of a world in the report; `gap` is empty if there is none.

    Raises:
        ValueError: the full rung has not been run.
    """
    scores = WorldScores(ladder, world)
    gap = scores.gap()
    return {
        "ladder": scores.table(),
        "components": scores.components(),
        "per_label": scores.per_label(),
        "images": image_counts(scores),
        "gap": pd.DataFrame([columns_of("gap", gap)] if gap else [], columns=["gap", "gap_low", "gap_high"]),
    }


def main(part: str) -> None:
    """Write the tables of one part of the ladder, and which code it was measured with."""
    ladder, folder = load_ladder(), REPORT / part
    settings = flatten(read_yaml("params.yaml")) | ladder.base
    if part == FACTORS:
        tables = {"factors": factor_table(ladder)}
        print(factor_text(ladder, tables["factors"]))
    else:
        tables = {"curves": curve_table(ladder, settings)} if part == CURVES else world_tables(ladder, part)
    tables["measured"] = pd.DataFrame([{"commit": git_revision()[0], "seeds": len(ladder.seeds(part))}])
    with atomic_output(folder) as partial:
        partial.mkdir()
        for name, table in tables.items():
            table.to_csv(partial / f"{name}.csv", index=False, float_format="%.6f")
        world = ladder.worlds.get(part, ladder.worlds[ladder.first_world])
        measured = {
            "seeds": len(ladder.seeds(part)),
            "base": ladder.base,
            "settings": deciding(settings),
            "files": file_digests(world.label_space),
        }
        (partial / "settings.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
