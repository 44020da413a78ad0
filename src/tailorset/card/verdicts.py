"""Verdict on each label: was it worth generating images? Answered by an interval, or not at all.

Shapes: N images, L labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from tailorset.evaluation.bootstrap import (
    Interval,
    average_precision_replicates,
    draw_resamples,
    percentile_interval,
    whole_set,
)
from tailorset.storage.checksums import digest
from tailorset.storage.label_tables import read_label_table

LADDER_COLUMNS = ("label", "difference", "low", "high")
DECIDING = (  # blocks of params.yaml that determine the images and the classifier
    "clip",
    "generator",
    "prepare_dataset",
    "write_prompts",
    "tune_unet",
    "tune_text_encoder",
    "generate_images",
    "filter_images",
    "train_classifier",
)
MEASURED_DATA_SET = "toybox"
WEIGHTS = Path("models/foundation/toybox")
COMPARE = (
    "dvc exp run -S 'train_classifier.train_on=[real]' trains without generated images where there are seen labels, and"
    " reports/evaluate/per_label.csv has the AP of each label to compare"
)

Answer = Literal["yes", "no", "undecided", "not measured"]


@dataclass(frozen=True)
class Verdict:
    """gain: average precision that generated images add to the same classifier trained without them."""

    answer: Answer
    gain: Interval | None = None


@dataclass(frozen=True)
class Precision:
    """Average precision on the test photos; None for a label that no photo shows.

    gain: ours - clip with its interval; None if a resample of the photos had no positive.
    """

    ours: float | None
    clip: float | None
    gain: Interval | None


def verdict(gain: Interval | None, min_gain: float) -> Verdict:
    """Return yes if all of the interval is above `min_gain`, no if none of it is, else undecided."""
    if gain is None:
        return Verdict("not measured")
    if gain.low > min_gain:
        return Verdict("yes", gain)
    return Verdict("no" if gain.high <= min_gain else "undecided", gain)


def ladder_gains(path: Path) -> dict[str, Interval]:
    """Read each label's average precision by the ladder with generated images minus without; {} if it has not run.

    Raises:
        ValueError: the table lacks a column, names a label twice, or its bounds are not finite and in order.
    """
    if not path.exists():
        return {}
    table = read_label_table(path)
    if missing := sorted(set(LADDER_COLUMNS) - set(table.columns)):
        raise ValueError(f"{path} has no column {missing}: it needs {list(LADDER_COLUMNS)}; run `make ladder` again")
    bounds = table[["low", "difference", "high"]].to_numpy("float64")
    wrong = table["label"].duplicated() | ~np.isfinite(bounds).all(1) | (np.diff(bounds) < 0).any(1)
    if wrong.any():
        raise ValueError(
            f"{path}, labels {table.loc[wrong, 'label'].tolist()}: give each label once, with finite"
            " low <= difference <= high; run `make ladder` again"
        )
    rows = zip(table["label"], bounds.tolist(), strict=True)
    return {label: Interval(value, low, high) for label, (low, value, high) in rows}


def file_digests(label_space: Path) -> dict[str, str]:
    """Return {path: digest} of the files that determine images and classifier of the toybox: its labels and weights."""
    return {path.as_posix(): digest(path) for path in (label_space, WEIGHTS) if path.exists()}


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, {dotted key: value}, that determine the images and the classifier."""
    return {key: value for key, value in settings.items() if key.partition(".")[0] in DECIDING}


def ladder_result(folder: Path, settings: Mapping[str, Any]) -> tuple[dict[str, Interval], str]:
    """Return the ladder's gains for a run with these settings, {dotted key: value}, and in words how it ran.

    Empty if a relevant setting differs from the ladder's, except those that the ladder itself makes smaller.
    """
    if settings.get("prepare_dataset.name") != MEASURED_DATA_SET:
        return {}, f"is for the embedded toybox only. For labels of your own, {COMPARE}"
    if not (folder / "settings.json").exists():
        return {}, "has not run yet: make ladder"
    then, now = changed_since(folder, settings)
    if others := sorted(then.keys() | now.keys()):
        return {}, f"ran with other values of {', '.join(others)}: make ladder"
    measured = _measured(folder)
    how = [f"{key} {value}" for key, value in measured["base"].items()]
    if measured.get("seeds") == 1:
        how.append("one seed, so the intervals leave out what another one changes")
    return ladder_gains(folder / "per_label.csv"), "ran with " + ", ".join(how)


def changed_since(folder: Path, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return relevant settings and files that differ from the ladder's: its values, and those of today.

    Values are those of params.yaml and, of files, the first digits of their digests.
    """
    measured = _measured(folder)
    files = {path: Path(path) for path in measured.get("files", {})}
    ours = deciding(settings) | {path: digest(file)[:12] if file.exists() else None for path, file in files.items()}
    theirs = measured["settings"] | {path: measured["files"][path][:12] for path in files}
    smaller = measured["base"]
    keys = (ours.keys() | theirs.keys()) - smaller.keys()
    changed = sorted(key for key in keys if ours.get(key) != theirs.get(key))
    then, now = ({key: values[key] for key in changed if key in values} for values in (theirs, ours))
    return then, now


def _measured(folder: Path) -> dict[str, Any]:
    """Read the `settings` of the ladder, its `base`, which it makes smaller, its seeds, and digests of its `files`."""
    measured: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    return measured


def precisions(ours: Tensor, clip: Tensor, targets: Tensor, num_resamples: int, seed: int) -> list[Precision]:
    """Return each label's average precision by two methods, and their difference on the same resamples of the photos.

    ours, clip: (N, L) scores on any monotone scale; targets: (N, L) in {1, 0, -1}.
    """
    everything = whole_set(1, len(targets))
    resamples = draw_resamples(1, len(targets), num_resamples, seed)
    values = [average_precision_replicates(scores[None], targets, everything)[0].tolist() for scores in (ours, clip)]
    replicates = [average_precision_replicates(scores[None], targets, resamples) for scores in (ours, clip)]
    return [_precision(*row) for row in zip(*values, (replicates[0] - replicates[1]).T, strict=True)]


def _precision(ours: float, clip: float, differences: Tensor) -> Precision:
    if np.isnan(ours):
        return Precision(None, None, None)
    if differences.isnan().any():
        return Precision(ours, clip, None)
    return Precision(ours, clip, percentile_interval(ours - clip, differences))
