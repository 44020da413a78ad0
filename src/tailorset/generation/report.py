"""Report on generation: metrics, a table and bars of pass rates per label, sheets of images with their scores.

Shapes: N images, U unseen labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from tailorset.clip.scorer import passes, requested_probabilities
from tailorset.generation.engine import Shard
from tailorset.generation.quota import QuotaPlanner
from tailorset.generation.studio import Row
from tailorset.images.sheets import contact_sheet
from tailorset.records import AT_QUOTA, COPIES, NEGATIVES
from tailorset.storage.shards import load_images

SHEET_IMAGES, SHEET_COLUMNS, SHEET_TILE_PX = 48, 8, 128


@dataclass
class Tally:
    """Outcome of the candidates in one byte each; their rows are read again from the product when needed.

    passed: one flag per candidate, by the discriminator; kept, judged: images of each label that passed, by the
    discriminator and by the judge; num_judged: images that passed by the judge; num_copies: near-duplicates of the
    photos that images start from, None if they start from noise.
    """

    unseen: Sequence[str]
    quota_threshold: float
    shards: list[str] = field(default_factory=list)
    passed: bytearray = field(default_factory=bytearray)
    num_judged: int = 0
    num_copies: int | None = None
    kept: dict[str, int] = field(init=False)
    judged: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.kept, self.judged = dict.fromkeys(self.unseen, 0), dict.fromkeys(self.unseen, 0)

    def __len__(self) -> int:
        return len(self.passed)

    def expected_images(self, quotas: Mapping[str, int], max_images: int) -> int:
        """Number of images that reach every quota if the share of kept images stays the same."""
        kept = sum(min(self.kept[label], quota) for label, quota in quotas.items())
        return min(max_images, round(len(self) * sum(quotas.values()) / kept)) if kept else max_images

    def fewest(self, quotas: Mapping[str, int], num_shown: int = 6) -> str:
        """Return the labels with the smallest part of their quota, for the progress bar."""
        labels = sorted(self.kept, key=lambda label: self.kept[label] / quotas[label])[:num_shown]
        return "kept: " + ", ".join(f"{label} {self.kept[label]}/{quotas[label]}" for label in labels)

    def add(self, shard: Shard) -> None:
        judged = passes(shard.rows, self.unseen, self.quota_threshold, "judge").tolist()
        self.shards.append(shard.name)
        self.passed += bytes(shard.passed)
        self.num_judged += sum(judged)
        if copies := [row[COPIES] for row in shard.rows if COPIES in row]:
            self.num_copies = (self.num_copies or 0) + sum(copies)
        for row, by_discriminator, by_judge in zip(shard.rows, shard.passed, judged, strict=True):
            for label in row["labels"]:
                self.kept[label] += by_discriminator
                self.judged[label] += by_judge


def outcome_table(planner: QuotaPlanner, tally: Tally) -> pd.DataFrame:
    """Return one row per unseen label; pass rates are over the candidates that request it."""
    reason = "no prompt left that may be drawn" if planner.left else "budget spent"
    outcome = dict.fromkeys(planner.under_quota, f"under quota, {reason}")
    outcome |= dict.fromkeys(planner.given_up, "given up: not one kept in its share of the budget")
    drawn, kept = planner.drawn, planner.kept
    return pd.DataFrame(
        {
            "label": planner.labels,
            "drawn": drawn.values(),
            "kept": kept.values(),
            "quota": planner.quotas.values(),
            "pass_rate": [kept[label] / drawn[label] for label in planner.labels],
            "judge_pass_rate": [tally.judged[label] / drawn[label] for label in planner.labels],
            "outcome": [outcome.get(label, AT_QUOTA) for label in planner.labels],
        }
    )


def metrics(planner: QuotaPlanner, tally: Tally, outcome: pd.DataFrame) -> dict[str, float]:
    return {
        "generate/images": len(tally),
        "generate/under_quota": len(planner.under_quota),
        "generate/judge_pass_rate": tally.num_judged / len(tally),
        **({} if tally.num_copies is None else {"generate/photo_copies": tally.num_copies}),
        **{f"generate/pass_rate/{row.label}": row.pass_rate for row in outcome.itertuples()},
    }


def save_plots(tally: Tally, outcome: pd.DataFrame, product: Path, folder: Path) -> None:
    """Write pass_rate.csv and .png, and kept.png, rejected.png and negatives.png if the product has such images."""
    outcome.to_csv(folder / "pass_rate.csv", index=False)
    plot_pass_rates(outcome, folder / "pass_rate.png")
    passed = np.frombuffer(tally.passed, dtype=bool)
    for name, chosen in (("kept", passed), ("rejected", ~passed)):
        if chosen.any():
            save_sheet(tally.unseen, np.flatnonzero(chosen), product, folder / f"{name}.png")
    if (negatives := product / NEGATIVES).exists():
        save_negatives(negatives, folder / "negatives.png")


def plot_pass_rates(outcome: pd.DataFrame, path: Path) -> None:
    places = np.arange(len(outcome))
    figure = Figure(figsize=(7, 1.2 + 0.5 * len(outcome)), layout="constrained")
    axes = figure.subplots()
    axes.barh(places - 0.2, outcome.pass_rate, 0.38, color="#33608c", label="discriminator (decides)")
    axes.barh(places + 0.2, outcome.judge_pass_rate, 0.38, color="#e0a458", label="judge (only measures)")
    names = [f"{row.label}\n{row.kept} of {row.drawn} kept" for row in outcome.itertuples()]
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of candidates that show every label requested of them")
    figure.legend(loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)


def save_sheet(unseen: Sequence[str], chosen: np.ndarray, product: Path, path: Path) -> None:
    """Show at most 48 images of the `chosen` row numbers, evenly spaced.

    Next to each requested label are its probability by the discriminator, then by the judge.
    """
    shown, images = some_images(chosen, product)
    scores = zip(
        shown,
        requested_probabilities(shown, unseen),
        requested_probabilities(shown, unseen, "judge"),
        strict=True,
    )
    captions = [
        "\n".join(f"{name} {ours[i]:.2f} / {judge[i]:.2f}" for i, name in enumerate(unseen) if name in row["labels"])
        for row, ours, judge in scores
    ]
    title = f"{path.stem}: probability of each requested label by discriminator / judge"
    contact_sheet(images, captions, SHEET_COLUMNS, sheet_scale(images), title).save(path)


def save_negatives(product: Path, path: Path) -> None:
    """Show at most 48 images of seen labels, evenly spaced, with the labels that were requested."""
    number = pq.read_metadata(product / "manifest.parquet").num_rows
    shown, images = some_images(np.arange(number), product)
    captions = ["\n".join(row["labels"]) for row in shown]
    title = "negatives: images of seen labels, none of which should show an unseen one"
    contact_sheet(images, captions, SHEET_COLUMNS, sheet_scale(images), title).save(path)


def some_images(chosen: np.ndarray, product: Path) -> tuple[list[Row], list[np.ndarray]]:
    """Return at most 48 of the `chosen` row numbers, evenly spaced: their rows and images."""
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(SHEET_IMAGES, len(chosen))).round().astype(int)]
    shown = rows_at(product / "manifest.parquet", chosen)
    return shown, [np.asarray(image) for _, image in load_images(pd.DataFrame(shown), product)]


def sheet_scale(images: Sequence[np.ndarray]) -> int:
    return max(1, SHEET_TILE_PX // images[0].shape[1])


def rows_at(manifest: Path, numbers: np.ndarray) -> list[Row]:
    """Return the rows of these ascending numbers; a row group without any of them is not read."""
    rows: list[Row] = []
    start = 0
    with pq.ParquetFile(manifest) as file:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if len(inside := numbers[(numbers >= start) & (numbers < end)]):
                rows += file.read_row_group(group).take(inside - start).to_pylist()
            start = end
    return rows
