"""Fit calibrations and thresholds for scores on photos, also for labels of which no photo is annotated.

Two sources for the unseen labels: annotated photos of the seen labels (`transfer`), or generated images, moved to the
photos by a mixture (`fit_mixture`). docs/decisions/thresholds.md compares them and lists what failed.
Shapes: N images, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tailorset.thresholds.rules import LabelRule, Thresholds, abstain_band

SCALE_SPREAD = 0.3  # prior standard deviation of a label's log scale around the shared one
MIN_SHARE = 1e-3  # of photos that show a label: 0 has no logit
MIN_VARIANCE = 1e-12  # of a label's logits: in equal ones there are no two normal distributions
NUM_ITERATIONS = 300


@dataclass(frozen=True)
class Affine:
    """probabilities = sigmoid(scale * logits + bias). scale, bias: (L,) float64."""

    scale: Tensor
    bias: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        return (self.scale * logits + self.bias).sigmoid()


def fit_platt(logits: Tensor, targets: Tensor, labels: Sequence[str]) -> Affine:
    """Fit Platt scaling per label, with scales shrunk towards a shared one: few images show a label.

    Source: Platt 1999. Maximum a posteriori by L-BFGS: log scale_l = shared + N(0, SCALE_SPREAD^2), shared ~ N(0, 1).

    Args:
        logits: (N, L) float64. targets: (N, L) in {1, 0, -1}.
    Raises:
        ValueError: a label has no positive or no negative.
    """
    _check_both_classes(targets, labels)
    shared, spread, bias = (
        torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in (1, len(labels), len(labels))
    )
    optimizer = torch.optim.LBFGS([shared, spread, bias], max_iter=NUM_ITERATIONS, line_search_fn="strong_wolfe")
    known, truth = targets >= 0, targets.clamp(min=0).double()

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = (shared + spread).exp() * logits + bias
        value = F.binary_cross_entropy_with_logits(scores, truth, weight=known.double(), reduction="sum")
        value = value + spread.square().sum() / (2 * SCALE_SPREAD**2) + shared.square().sum() / 2
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return Affine((shared + spread).exp().detach(), bias.detach())


def fit_seen(logits: Tensor, targets: Tensor, photo_logits: Tensor, labels: Sequence[str]) -> Affine:
    """Fit Platt scaling on annotated photos, with the label shares of other, unannotated photos."""
    known, shown = (targets >= 0).double().sum(0), (targets == 1).double().sum(0)
    return shift_priors(fit_platt(logits, targets, labels), shown / known, photo_logits)


def transfer(seen: Affine, photo_logits: Tensor, share_pooling: float) -> Affine:
    """Carry the seen labels' calibration to labels of which photos (N, L) are not annotated.

    All get the mean scale. The share of the photos that shows a label is estimated with the mean bias, and moved
    towards the labels' common share: 0 trusts each label's own scores, 1 assumes equally frequent labels.
    The bias then makes the mean probability equal that share.
    """
    scale = seen.scale.log().mean().exp().expand(photo_logits.shape[1])
    own = Affine(scale, seen.bias.mean())(photo_logits).mean(0).clamp(max=1 - MIN_SHARE)  # 1 has no logit
    share = ((1 - share_pooling) * own.logit() + share_pooling * own.mean().logit()).sigmoid()
    return Affine(scale, bias_for_share(scale * photo_logits, share))


def bias_for_share(scores: Tensor, share: Tensor) -> Tensor:
    """Return the bias (L,) at which mean sigmoid(scores + bias) over N is `share` (L,), by bisection."""
    low, high = share.logit() - scores.amax(0), share.logit() - scores.amin(0)
    for _ in range(60):
        middle = (low + high) / 2
        too_high = (scores + middle).sigmoid().mean(0) > share
        low, high = torch.where(too_high, low, middle), torch.where(too_high, middle, high)
    return (low + high) / 2


def shift_priors(source: Affine, source_share: Tensor, photo_logits: Tensor) -> Affine:
    """Adapt to photos that show the labels in other shares, (L,), by EM over unannotated photo logits (N, L).

    Assumes that the label's images are scored alike in both places; from generated images to photos they are not.
    Source: Saerens et al. 2002.
    """
    scores = source.scale * photo_logits + source.bias - source_share.logit()
    share = source_share
    for _ in range(NUM_ITERATIONS):
        share = (scores + share.logit()).sigmoid().mean(0).clamp(MIN_SHARE, 1 - MIN_SHARE)
    return Affine(source.scale, source.bias + share.logit() - source_share.logit())


def fit_mixture(start: Affine, photo_logits: Tensor) -> Affine:
    """Fit two normal distributions with one variance per label to unannotated photo logits (N, L) by EM.

    `start` gives the first probabilities; equal variances make the posterior a sigmoid of a line again. A label stays
    as it is where the photos' logits are all equal, or surely belong to one distribution.
    """
    fitted = start
    for _ in range(NUM_ITERATIONS):
        fitted = _mixture_step(fitted, photo_logits)
    return fitted


def _mixture_step(fitted: Affine, logits: Tensor) -> Affine:
    shown = fitted(logits)
    share = shown.mean(0).clamp(MIN_SHARE, 1 - MIN_SHARE)
    present = (shown * logits).sum(0) / shown.sum(0)
    absent = ((1 - shown) * logits).sum(0) / (1 - shown).sum(0)
    variance = (shown * (logits - present) ** 2 + (1 - shown) * (logits - absent) ** 2).mean(0)
    scale, bias = (present - absent) / variance, share.logit() - (present**2 - absent**2) / (2 * variance)
    is_defined = variance > MIN_VARIANCE  # not if it is NaN
    return Affine(torch.where(is_defined, scale, fitted.scale), torch.where(is_defined, bias, fitted.bias))


def best_threshold(probabilities: Tensor, shown: Tensor) -> float:
    """Return the threshold with the best F1 if image i shows the label with probability shown[i], both (N,).

    shown = probabilities: expected F1, without annotation; shown = targets: measured F1.
    Source: the plug-in rule, Lipton et al. 2014.
    """
    order = probabilities.argsort(descending=True)
    ranked = probabilities[order]
    hits = shown[order].double().cumsum(0)
    f1 = 2 * hits / (torch.arange(1, len(ranked) + 1) + shown.sum())
    inside_a_tie = torch.cat([ranked[:-1] == ranked[1:], torch.tensor([False])])
    return float(ranked[f1.masked_fill(inside_a_tie, -1).argmax()])


def make_thresholds(
    labels: Sequence[str], fitted: Affine, logits: Tensor, shown: Tensor | None, max_risk: float
) -> Thresholds:
    """Return one rule per label, with the best threshold on these images: logits (N, L).

    shown: targets (N, L) in {1, 0, -1}; None = the probabilities by `fitted`.
    """
    probabilities = fitted(logits)
    truth = probabilities if shown is None else shown
    rules = {}
    for column, label in enumerate(labels):
        known = truth[:, column] >= 0
        threshold = best_threshold(probabilities[known, column], truth[known, column])
        scale, bias = float(fitted.scale[column]), float(fitted.bias[column])
        rules[label] = LabelRule(scale, bias, threshold, *abstain_band(threshold, max_risk))
    return Thresholds(rules)


def one_sided(targets: Tensor, labels: Sequence[str]) -> list[str]:
    """Return the labels that no row of targets (N, L) shows, or that all do; -1 is not annotated."""
    both = (targets == 1).any(0) & (targets == 0).any(0)
    return [label for label, there in zip(labels, both.tolist(), strict=True) if not there]


def _check_both_classes(targets: Tensor, labels: Sequence[str]) -> None:
    if missing := one_sided(targets, labels):
        raise ValueError(
            f"thresholds need images with and without each label, and one kind is missing for {missing}: give"
            " these labels more images, or raise train_classifier.held_out_share, the share of them kept for this"
        )
