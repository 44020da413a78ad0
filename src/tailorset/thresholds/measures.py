"""Measures of thresholds: calibration error, F1, and risk against coverage.

Shapes: N images, L labels. Targets: 1 present, 0 absent, -1 not annotated (left out of every figure).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error, multilabel_f1_score

from tailorset.thresholds.rules import Decisions

NUM_BINS = 15


def calibration_error(probabilities: Tensor, targets: Tensor) -> float:
    """Return the expected calibration error of a label's probabilities in 15 equal bins, averaged over the labels.

    Labels without an annotation are left out. Source: Naeini et al. 2015; one label at a time, because errors of
    opposite sign cancel in a common bin.
    """
    errors = [
        binary_calibration_error(values[known], truth[known].long(), n_bins=NUM_BINS, norm="l1")
        for values, truth in zip(probabilities.T, targets.T, strict=True)
        if (known := truth >= 0).any()
    ]
    return float(torch.stack(errors).mean())


def f1_metrics(present: Tensor, targets: Tensor) -> dict[str, float]:
    """Return f1_macro, the mean over the labels that have a positive, and f1_micro, over all decisions."""
    predicted, truth, num_labels = present.float(), targets.long(), targets.shape[1]
    per_label = multilabel_f1_score(predicted, truth, num_labels, average=None, ignore_index=-1)
    overall = multilabel_f1_score(predicted, truth, num_labels, average="micro", ignore_index=-1)
    return {"f1_macro": float(per_label[(targets == 1).any(0)].mean()), "f1_micro": float(overall)}


def risk_coverage(decisions: Decisions, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return (coverage, risk) over all annotated decisions: share answered, surest first, and share of these wrong.

    Sureness is the calibrated probability of being right. Source: Geifman and El-Yaniv 2017.
    """
    known = targets >= 0
    present = decisions.present[known]
    right = torch.where(present, decisions.probabilities[known], 1 - decisions.probabilities[known])
    order = right.argsort(descending=True, stable=True)
    wrong = (present != (targets[known] == 1))[order].double()
    answered = torch.arange(1, len(wrong) + 1)
    return answered / len(wrong), wrong.cumsum(0) / answered


def trust_metrics(decisions: Decisions, targets: Tensor) -> dict[str, float]:
    """Return calibration error, F1, risk and area under the risk-coverage curve of all decisions; coverage of answers.

    `answered/risk` is the risk of the decisions that do not abstain, and absent if all do.
    """
    answered = targets.masked_fill(decisions.abstained, -1)
    known = answered >= 0
    metrics = {
        "ece": calibration_error(decisions.probabilities, targets),
        **f1_metrics(decisions.present, targets),
        "risk": _risk(decisions, targets),
        "aurc": float(risk_coverage(decisions, targets)[1].mean()),
        "coverage": float(known.sum() / (targets >= 0).sum()),
    }
    return metrics | ({"answered/risk": _risk(decisions, answered)} if known.any() else {})


def trust_figure(rules: Mapping[str, Decisions], targets: Tensor) -> Figure:
    """Draw two panels with one line per rule: share present against probability, and risk against coverage."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    reliability, risk = figure.subplots(1, 2)
    reliability.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
    for name, decisions in rules.items():
        reliability.plot(*_reliability(decisions.probabilities, targets), marker=".", label=name)
        risk.plot(*risk_coverage(decisions, targets), label=name)
    reliability.set(xlabel="calibrated probability", ylabel="share present", xlim=(0, 1), ylim=(0, 1))
    risk.set(xlabel="coverage: share of decisions answered, surest first", ylabel="risk: share wrong", ylim=(0, None))
    risk.legend()
    return figure


def _reliability(probabilities: Tensor, targets: Tensor) -> tuple[list[float], list[float]]:
    """Return mean probability and share present of each bin with a decision."""
    known = targets >= 0
    values, truth = probabilities[known], (targets[known] == 1).double()
    bins = (values * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    used = bins.unique()
    return ([float(values[bins == one].mean()) for one in used], [float(truth[bins == one].mean()) for one in used])


def _risk(decisions: Decisions, targets: Tensor) -> float:
    known = targets >= 0
    return float((decisions.present != (targets == 1))[known].double().mean())
