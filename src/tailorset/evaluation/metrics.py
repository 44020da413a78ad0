"""Multi-label metrics: mAP over labels, overall precision, recall and F1 of the top k.

Shapes: N images, L labels. Targets: 1 present, 0 absent, -1 not annotated (left out of every figure).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailorset.records import LabelSpace

Normalise = Callable[[Tensor], Tensor]


def as_is(scores: Tensor) -> Tensor:
    """Return the scores: the normalisation that changes nothing."""
    return scores


def average_precisions(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the average precision of each label, (L,) float64; NaN for a label without a positive.

    It is the mean over a label's positives of the precision among all images that score as high or higher, which equals
    scikit-learn's sum over thresholds, ties included. Two plain sorts per label are many times faster than sorting the
    images' indices (benchmarks/bench.py), and numpy sorts on as many threads as torch uses.
    """
    _check(scores, targets)
    as_rows = (scores.T.contiguous().cpu().numpy(), targets.T.contiguous().cpu().numpy())  # (L, N) each
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return torch.tensor(list(threads.map(_average_precision, *as_rows)), dtype=torch.float64)


def _average_precision(scores: NDArray[Any], targets: NDArray[Any]) -> float:
    """scores, targets: (N,) of one label."""
    positives, known = np.sort(scores[targets == 1]), np.sort(scores[targets >= 0])
    if not len(positives):
        return math.nan
    true = len(positives) - np.searchsorted(positives, positives)
    return float(np.mean(true / (len(known) - np.searchsorted(known, positives))))


def top_k_metrics(scores: Tensor, targets: Tensor, k: int) -> dict[str, float]:
    """Return overall (micro) precision, recall and F1 for each image's k best annotated labels, or all it has.

    Raises:
        ValueError: k is below 1.
    """
    from torchmetrics.functional import classification  # takes three seconds: imported only to measure

    _check(scores, targets)
    num_labels = scores.shape[1]
    predictions = top_k_predictions(scores, targets, k).float()
    known = targets.long()
    measures = {
        "precision": classification.multilabel_precision,
        "recall": classification.multilabel_recall,
        "f1": classification.multilabel_f1_score,
    }
    return {
        f"{name}_at_{k}": float(measure(predictions, known, num_labels, average="micro", ignore_index=-1))
        for name, measure in measures.items()
    }


def top_k_predictions(scores: Tensor, targets: Tensor, k: int) -> Tensor:
    """Return (N, L), 1 at each image's k best annotated labels; unannotated ones fill up if an image has fewer.

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"top_k {k}: choose 1 or more, usually the number of labels per image")
    ranked = scores.masked_fill(targets < 0, -torch.inf)
    return torch.zeros_like(targets).scatter_(1, ranked.topk(min(k, scores.shape[1])).indices, 1)


def multilabel_metrics(scores: Tensor, targets: Tensor, top_k: Sequence[int] = (3,)) -> dict[str, float]:
    """Return mAP over the labels with a positive, the number without one, and overall P/R/F1 at each k.

    Args:
        scores: (N, L), finite; any monotone scale.
        targets: (N, L) in {1, 0, -1}.
    Raises:
        ValueError: no label has a positive, a score is not finite, a shape or k does not fit.
    """
    precisions = average_precisions(scores, targets)
    known = precisions[~precisions.isnan()]
    if not len(known):
        raise ValueError("no label has a positive image: the metric is undefined; check targets and split")
    metrics = {"map": float(known.mean()), "num_labels_without_positive": float(len(precisions) - len(known))}
    for k in top_k:
        metrics |= top_k_metrics(scores, targets, k)
    return metrics


def zero_shot_metrics(
    scores: Tensor,
    targets: Tensor,
    label_space: LabelSpace,
    top_k: Sequence[int] = (3,),
    normalise: Normalise = as_is,
) -> dict[str, float]:
    """Return `zsl/...` of the unseen columns and `gzsl/...` of all; columns follow `label_space.names`.

    normalise: applied to the scores of the columns that are compared, (N, columns) -> the same.
    """
    unseen = label_space.columns(label_space.unseen)
    zsl = multilabel_metrics(normalise(scores[:, unseen]), targets[:, unseen], top_k)
    gzsl = multilabel_metrics(normalise(scores), targets, top_k)
    return {f"zsl/{key}": value for key, value in zsl.items()} | {f"gzsl/{key}": value for key, value in gzsl.items()}


def harmonic_map(metrics: dict[str, float]) -> float:
    """Return 2 zg / (z + g) of ZSL and GZSL mAP, by which training selects its epoch."""
    zsl, gzsl = metrics["zsl/map"], metrics["gzsl/map"]
    return 2 * zsl * gzsl / (zsl + gzsl)


def _check(scores: Tensor, targets: Tensor) -> None:
    if scores.shape != targets.shape or scores.ndim != 2:
        raise ValueError(
            f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)} must both be (images, labels)"
        )
    if not scores.isfinite().all():
        raise ValueError(
            f"{int((~scores.isfinite()).sum())} scores are not finite: the model diverged, lower its learning rate"
        )
