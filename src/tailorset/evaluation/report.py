"""What evaluation shows besides its metrics: a table per label, precision-recall curves, captions of predictions.

Letters: N images, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import binary_precision_recall_curve

from tailorset.evaluation.metrics import Normalise, as_is, average_precisions
from tailorset.records import LabelSpace

CURVE_POINTS = 1000


@dataclass(frozen=True)
class Method:
    """One row of the comparison. scores: (N, L); normalise: applied to the columns that are compared."""

    name: str
    prefix: str  # of its metrics' keys
    scores: Tensor
    normalise: Normalise = as_is


def per_label_table(methods: Sequence[Method], targets: Tensor, label_space: LabelSpace) -> pd.DataFrame:
    """label, seen, positives and each method's average precision (empty without a positive).

    Unseen labels are scored among the unseen ones, so the mean over them is `zsl/map`; seen labels among all.
    """
    names = label_space.names
    table = pd.DataFrame({"label": names, "seen": [name in label_space.seen for name in names]})
    table["positives"] = (targets == 1).sum(0).numpy()
    unseen = label_space.columns(label_space.unseen)
    for method in methods:
        values = average_precisions(method.normalise(method.scores), targets)
        values[unseen] = average_precisions(method.normalise(method.scores[:, unseen]), targets[:, unseen])
        table[method.name] = values.numpy()
    return table


def precision_recall_figure(methods: Sequence[Method], targets: Tensor, label_space: LabelSpace) -> Figure:
    """Two panels, ZSL and GZSL: every (image, label) decision ranked by score, one curve a method."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, title, labels in zip(panels, ("ZSL", "GZSL"), (label_space.unseen, label_space.names), strict=True):
        columns = label_space.columns(labels)
        for method in methods:
            recall, precision = _curve(method.normalise(method.scores[:, columns]), targets[:, columns])
            axes.plot(recall, precision, label=method.name)
        axes.set(title=f"{title}: {len(labels)} labels", xlabel="recall", xlim=(0, 1), ylim=(0, 1))
    panels[0].set_ylabel("precision")
    panels[0].legend()
    return figure


def prediction_captions(probabilities: Tensor, targets: Tensor, label_space: LabelSpace, k: int = 3) -> list[str]:
    """Per image, its k best labels with their probability, "*" on right ones, then what they missed."""
    captions = []
    for scores, truth in zip(probabilities, targets, strict=True):
        best = scores.topk(min(k, len(scores))).indices.tolist()
        lines = [f"{'*' if truth[i] == 1 else ' '} {label_space.names[i]} {float(scores[i]):.2f}" for i in best]
        missed = [name for i, name in enumerate(label_space.names) if truth[i] == 1 and i not in best]
        captions.append("\n".join(lines + ([f"missed: {', '.join(missed)}"] if missed else [])))
    return captions


def _curve(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(recall, precision), a thousand points of as many as there are decisions."""
    known = targets >= 0
    ranks = scores[known].unique(return_inverse=True)[1].double()
    precision, recall, _ = binary_precision_recall_curve(ranks / ranks.max().clamp(min=1), targets[known].long())
    shown = torch.linspace(0, len(recall) - 1, min(CURVE_POINTS, len(recall))).round().long()
    return recall[shown], precision[shown]
