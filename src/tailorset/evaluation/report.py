"""Figures of stage evaluate: precision-recall curves, and test images with their best predictions.

Shapes: N images, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchmetrics.functional.classification import binary_precision_recall_curve

from tailorset.evaluation.comparison import Method
from tailorset.images.sheets import contact_sheet
from tailorset.records import LabelSpace
from tailorset.storage.image_set import ImageSet

CURVE_POINTS = 1000
NUM_SHOWN = 24  # test images on the sheet


def precision_recall_figure(methods: Sequence[Method], targets: Tensor, label_space: LabelSpace) -> Figure:
    """Draw two panels, ZSL and GZSL: all (image, label) decisions ranked by score, one curve per method."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, title, labels in zip(panels, ("ZSL", "GZSL"), (label_space.unseen, label_space.names), strict=True):
        columns = label_space.columns(labels)
        for method in methods:
            recall, precision = _curve(method.normalise(method.scores[:, columns]), targets[:, columns])
            axes.plot(recall, precision, label=method.row.method)
        axes.set(title=f"{title}: {len(labels)} labels", xlabel="recall", xlim=(0, 1), ylim=(0, 1))
    panels[0].set_ylabel("precision")
    panels[0].legend()
    return figure


def prediction_sheet(test: ImageSet, probabilities: Tensor, label_space: LabelSpace) -> Image.Image:
    """Draw the first test images with their best labels. probabilities: (N, L)."""
    shown = test.images[:NUM_SHOWN].permute(0, 2, 3, 1).numpy()
    captions = prediction_captions(probabilities[:NUM_SHOWN], test.targets[:NUM_SHOWN], label_space)
    title = "test images: the three best scores, * = present; missed = present but not among them"
    return contact_sheet(list(shown), captions, columns=6, scale=1, title=title)


def prediction_captions(probabilities: Tensor, targets: Tensor, label_space: LabelSpace, k: int = 3) -> list[str]:
    """Return per image its k best labels with their probability, "*" on right ones, then the labels missed."""
    captions = []
    for scores, truth in zip(probabilities, targets, strict=True):
        best = scores.topk(min(k, len(scores))).indices.tolist()
        lines = [f"{'*' if truth[i] == 1 else ' '} {label_space.names[i]} {float(scores[i]):.2f}" for i in best]
        missed = [name for i, name in enumerate(label_space.names) if truth[i] == 1 and i not in best]
        captions.append("\n".join(lines + ([f"missed: {', '.join(missed)}"] if missed else [])))
    return captions


def _curve(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return (recall, precision) at CURVE_POINTS of the decisions."""
    known = targets >= 0
    ranks = scores[known].unique(return_inverse=True)[1].double()
    precision, recall, _ = binary_precision_recall_curve(ranks / ranks.max().clamp(min=1), targets[known].long())
    shown = torch.linspace(0, len(recall) - 1, min(CURVE_POINTS, len(recall))).round().long()
    return recall[shown], precision[shown]
