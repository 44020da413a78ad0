"""Was it worth generating images of a label? Answered by an interval, or not at all.

Letters: N images, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from torch import Tensor

from tailorset.bootstrap import Interval, average_precision_replicates, draw_resamples, percentile_interval, whole_set

LADDER_COLUMNS = ("label", "difference", "low", "high")

Answer = Literal["yes", "no", "undecided", "not measured"]


@dataclass(frozen=True)
class Verdict:
    """gain: average precision that the generated images add to the same classifier trained without them."""

    answer: Answer
    gain: Interval | None = None


@dataclass(frozen=True)
class Precision:
    """Average precision on the test photos; nothing is known of a label that no photo shows.

    gain: ours - clip with its interval; None where a resample of the photos held no positive.
    """

    ours: float | None
    clip: float | None
    gain: Interval | None


def verdict(gain: Interval | None, min_gain: float) -> Verdict:
    """Yes if all of the interval lies above `min_gain`, no if none of it does, undecided in between."""
    if gain is None:
        return Verdict("not measured")
    if gain.low > min_gain:
        return Verdict("yes", gain)
    return Verdict("no" if gain.high <= min_gain else "undecided", gain)


def ladder_gains(path: Path) -> dict[str, Interval]:
    """Per label, what the ladder measured with generated images minus without; nothing if it has not run.

    Raises:
        ValueError: the table lacks a column, names a label twice, or its bounds are not finite and in order.
    """
    if not path.exists():
        return {}
    table = pd.read_csv(path)
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


def precisions(ours: Tensor, clip: Tensor, targets: Tensor, num_resamples: int, seed: int) -> list[Precision]:
    """Each label's average precision by two methods, and their difference on the same resamples of the photos.

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
