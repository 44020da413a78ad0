"""Confidence intervals of multi-label metrics: a bootstrap over test images and training seeds at once.

Shapes: R resamples, S training seeds, N test images, L labels. Every row of a comparison is measured on the *same*
resamples, so the image and seed noise that two rows share cancels in their difference.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; Rao and Wu, "Resampling Inference With Complex
Survey Data", JASA 1988.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tailorset.evaluation.metrics import top_k_predictions
from tailorset.evaluation.results import percent
from tailorset.seeding import numpy_rng

ELEMENTS_AT_ONCE = 4_000_000  # of a (resamples, images) matrix in memory


@dataclass(frozen=True)
class Resamples:
    """Seeds and images of each resample.

    seeds: (R, D) int64, the drawn seeds. counts: (R, N) int32, how often each image was drawn.
    """

    num_seeds: int
    seeds: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Interval:
    """A figure and its bounds at the requested level."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def in_percent(self, signed: bool = False) -> str:
        """Return the figure and its bounds in percent: "48.7 [46.1, 50.9]"."""
        value, low, high = (percent(share, signed=signed) for share in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


@dataclass(frozen=True)
class Estimate:
    """A metric on the whole test set, averaged over the seeds, and on each resample, (R,)."""

    value: float
    replicates: Tensor

    def interval(self, level: float = 0.95) -> Interval:
        """See `percentile_interval`."""
        return percentile_interval(self.value, self.replicates, level)


Measure = Callable[[Tensor, Tensor, Resamples], Tensor]


def draw_resamples(num_seeds: int, num_images: int, num_resamples: int, seed: int) -> Resamples:
    """Draw N images and S - 1 training seeds per resample, with replacement (the single seed if S is 1).

    S - 1 and not S: the mean of S - 1 draws has the unbiased variance s^2 / S of the mean over the seeds, where S draws
    would understate it by (S - 1) / S, a fifth at five seeds (Rao and Wu 1988). Few seeds still make a 95 % interval
    too narrow where seed noise dominates: simulated at S = 5, it covers 94 % when both noises are alike, and 87 % when
    only the seeds vary.

    Raises:
        ValueError: a number is below 1.
    """
    numbers = {"num_seeds": num_seeds, "num_images": num_images, "num_resamples": num_resamples}
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} {number}: choose 1 or more (usually 5 seeds and 1000 resamples)")
    rng = numpy_rng("bootstrap", seed, num_seeds, num_images)
    counts = rng.multinomial(num_images, [1 / num_images] * num_images, size=num_resamples)
    seeds = rng.integers(num_seeds, size=(num_resamples, max(num_seeds - 1, 1)))
    return Resamples(num_seeds, torch.from_numpy(seeds), torch.from_numpy(counts).int())


def whole_set(num_seeds: int, num_images: int) -> Resamples:
    """Return the one resample with every seed and every image once: it gives the figure itself."""
    return Resamples(num_seeds, torch.arange(num_seeds)[None], torch.ones(1, num_images, dtype=torch.int32))


def average_precision_replicates(scores: Tensor, targets: Tensor, resamples: Resamples) -> Tensor:
    """Return the average precision of each label on each resample, averaged over its seeds: (R, L).

    NaN if a resample has no positive of the label.

    Args:
        scores: (S, N, L), or (1, N, L) for a model that no training seed changes; any monotone scale.
        targets: (N, L) in {1, 0, -1}; -1 is not annotated and left out.
    Raises:
        ValueError: shapes do not fit, a score is not finite.
    """
    _check(scores, targets, resamples)
    per_seed = []
    for matrix in scores:
        columns = zip(matrix.T, targets.T, strict=True)
        per_seed.append(torch.stack([_weighted_average_precision(*column, resamples.counts) for column in columns], 1))
    return _mean_over_seeds(torch.stack(per_seed), resamples)


def mean_average_precision(scores: Tensor, targets: Tensor, resamples: Resamples) -> Tensor:
    """Return mAP over the labels with a positive in the resample, averaged over its seeds: (R,). Arguments as above."""
    return average_precision_replicates(scores, targets, resamples).nanmean(1)


def f1_at_k(scores: Tensor, targets: Tensor, resamples: Resamples, k: int = 3) -> Tensor:
    """Return overall (micro) F1 of each image's k best annotated labels, averaged over the resample's seeds: (R,)."""
    _check(scores, targets, resamples)
    counts = resamples.counts.double()
    present = counts @ (targets == 1).sum(1).double()
    per_seed = []
    for matrix in scores:
        predicted = (top_k_predictions(matrix, targets, k) == 1) & (targets >= 0)
        hits = counts @ (predicted & (targets == 1)).sum(1).double()
        per_seed.append(2 * hits / (counts @ predicted.sum(1).double() + present))
    return _mean_over_seeds(torch.stack(per_seed), resamples)


def estimate(measure: Measure, scores: Tensor, targets: Tensor, resamples: Resamples) -> Estimate:
    """Return a metric, e.g. `mean_average_precision`, with its replicates; the value comes from the same code."""
    everything = whole_set(resamples.num_seeds, len(targets))
    return Estimate(float(measure(scores, targets, everything)), measure(scores, targets, resamples))


def percentile_interval(value: float, replicates: Tensor, level: float = 0.95) -> Interval:
    """Return the replicates' central `level`, around the value on the whole set.

    Raises:
        ValueError: the level is not within (0, 1); a replicate is NaN: its resample held no positive.
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level}: choose a share between 0 and 1, usually 0.95")
    if undefined := int(replicates.isnan().sum()):
        raise ValueError(
            f"{undefined} of {len(replicates)} resamples hold no positive: report the value without an interval"
        )
    tail = (1 - level) / 2
    low, high = replicates.double().quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(value, low, high)


def interval_or_value(value: float, replicates: Tensor, level: float = 0.95) -> Interval | float:
    """Return the value alone where few images show a label, so that some resample holds no positive."""
    return value if replicates.isnan().any() else percentile_interval(value, replicates, level)


def figure_in_percent(figure: Interval | float | None, signed: bool = False) -> str:
    """Return a figure in percent, with its bounds if it has any; "-" for None."""
    return figure.in_percent(signed) if isinstance(figure, Interval) else percent(figure, signed=signed)


def difference(ours: Estimate, other: Estimate) -> Estimate:
    """Return ours - other, resample by resample.

    Raises:
        ValueError: they were not measured on the same resamples.
    """
    return Estimate(ours.value - other.value, _paired(ours, other))


def paired_difference(ours: Estimate, other: Estimate, level: float = 0.95) -> Interval:
    """Return the interval of ours - other. Both must have been measured on the same resamples."""
    return difference(ours, other).interval(level)


def gap_closed(ours: Estimate, raw: Estimate, supervised: Estimate, level: float = 0.95) -> Interval:
    """Return (ours - raw) / (supervised - raw), resample by resample.

    Raises:
        ValueError: the interval of supervised - raw touches 0: there is no gap to close, and the ratio is meaningless.
    """
    gap = paired_difference(supervised, raw, level)
    if gap.low <= 0:
        raise ValueError(
            f"supervised - raw is {gap}: not above 0, so no share of it can be stated; show the rows alone"
        )
    ratios = _paired(ours, raw) / _paired(supervised, raw)
    return percentile_interval((ours.value - raw.value) / gap.value, ratios, level)


def _paired(ours: Estimate, other: Estimate) -> Tensor:
    if ours.replicates.shape != other.replicates.shape:
        sizes = f"{len(ours.replicates)} and {len(other.replicates)}"
        raise ValueError(f"{sizes} replicates: measure both rows on the same resamples, or they are not paired")
    return ours.replicates - other.replicates


def _weighted_average_precision(scores: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
    """Return average precision of one label with image i present counts[:, i] times: (N,), (N,), (R, N) -> (R,).

    AP = sum over positives i of count_i * precision(down to i's score) / number of positives; equal scores share the
    precision at the end of their group, as in scikit-learn.
    """
    known = (targets >= 0).nonzero().flatten()
    order = known[scores[known].argsort(descending=True)]
    falling = -scores[order]
    positives = (targets[order] == 1).nonzero().flatten()
    ends = torch.searchsorted(falling, falling[positives], right=True) - 1
    hits_at_ends = torch.searchsorted(positives, ends, right=True) - 1  # the last positive within the group
    rows = counts.split(max(ELEMENTS_AT_ONCE // max(len(order), 1), 1))
    return torch.cat([_precision_sum(chunk[:, order], positives, ends, hits_at_ends) for chunk in rows])


def _precision_sum(counts: Tensor, positives: Tensor, ends: Tensor, hits_at_ends: Tensor) -> Tensor:
    drawn = counts[:, positives].double()  # (R, P)
    hits = drawn.cumsum(1)[:, hits_at_ends]
    shown = counts.cumsum(1)[:, ends]
    precision = hits / shown.clamp(min=1)  # shown is 0 only where drawn is 0
    return (drawn * precision).sum(1) / drawn.sum(1)  # 0 / 0 = NaN: no positive


def _mean_over_seeds(values: Tensor, resamples: Resamples) -> Tensor:
    """(S or 1, R, ...) -> (R, ...): each resample's own seeds, the same seed as often as it was drawn."""
    if len(values) == 1:
        return values[0]
    return values[resamples.seeds, torch.arange(len(resamples.seeds))[:, None]].mean(1)


def _check(scores: Tensor, targets: Tensor, resamples: Resamples) -> None:
    if scores.ndim != 3 or scores.shape[1:] != targets.shape:
        raise ValueError(
            f"scores {tuple(scores.shape)} must be (seeds, images, labels) of targets {tuple(targets.shape)}"
        )
    if len(scores) not in (1, resamples.num_seeds) or len(targets) != resamples.counts.shape[1]:
        raise ValueError(
            f"scores {tuple(scores.shape)} do not fit resamples of {resamples.num_seeds} seeds and "
            f"{resamples.counts.shape[1]} images: draw them for this many, or give one score matrix"
        )
    if not scores.isfinite().all():
        raise ValueError(
            f"{int((~scores.isfinite()).sum())} scores are not finite: the model diverged, lower its learning rate"
        )
