"""The class-discriminative loss: grouped softmax over CLIP scores, and the asymmetric loss on probabilities.

Shapes: B images, L labels, P requested labels of an image, N the rest of its labels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def grouped_softmax(logits: Tensor, requested: Tensor) -> Tensor:
    """Return probabilities for which requested labels never compete with each other.

    For each p in P a softmax over {p} and N only: p keeps the probability of its own group, a label of N gets the
    mean of its probabilities over the |P| groups. If N is empty, every p is certain (probability 1, no gradient).

    logits: (B, L), scaled cosines; requested: (B, L) bool, at least one label per row; returns (B, L) in [0, 1],
    at least float32.

    Raises: ValueError for shapes that differ, or a row that requests nothing.
    Source: Zhang et al. 2024, sec. 3.2.
    """
    _check_requested(logits, requested)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    lowest = torch.finfo(logits.dtype).min  # finite: -inf would turn gradients into NaN where N is empty
    negatives = logits.masked_fill(requested, lowest).logsumexp(dim=1, keepdim=True)  # (B, 1)
    group_sums = torch.logaddexp(logits, negatives)  # (B, L): log of the softmax denominator of label l's group
    mean_weight = (-group_sums).masked_fill(~requested, lowest).logsumexp(dim=1, keepdim=True)
    mean_weight = mean_weight - requested.sum(dim=1, keepdim=True).to(logits.dtype).log()
    # where() keeps the unused branch's gradient finite only if its input is: exp() sees zeros at requested labels
    of_negatives = torch.where(requested, torch.zeros_like(logits), logits + mean_weight).exp()
    return torch.where(requested, torch.sigmoid(logits - negatives), of_negatives)


def asymmetric_loss(
    probabilities: Tensor,
    targets: Tensor,
    gamma_neg: float,
    gamma_pos: float,
    clip: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the asymmetric loss directly on probabilities, summed over labels, mean over the batch.

    positive: -(1 - p)^gamma_pos log p;  negative: -q^gamma_neg log(1 - q) with q = max(p - clip, 0).
    The focal weights (the powers) carry no gradient.

    probabilities: (B, L) in [0, 1]; targets: (B, L), 1 or True = present; mask: (B, L) bool, False = not annotated,
    without weight.

    Raises: ValueError for shapes that differ or an empty batch.
    Source: Ridnik et al. 2021, eq. 7; Zhang et al. 2024, sec. 3.2.
    Deviation: the logarithm is cut off at the smallest float, not at 1e-8, so that an image that misses a label by
    far still gets a gradient.
    """
    if probabilities.shape != targets.shape or (mask is not None and mask.shape != targets.shape):
        shapes = [None if part is None else tuple(part.shape) for part in (probabilities, targets, mask)]
        raise ValueError(f"probabilities, targets and mask are {shapes}: give the same (B, L) for all of them")
    if not len(probabilities):
        raise ValueError("an empty batch has no mean loss: give at least one image")
    tiny = torch.finfo(probabilities.dtype).tiny
    positive = targets.bool()
    shifted = (probabilities - clip).clamp(min=0)
    likelihood = torch.where(positive, probabilities, 1 - shifted).clamp(min=tiny)
    with torch.no_grad():
        focus = torch.where(positive, (1 - probabilities).clamp(min=0) ** gamma_pos, shifted**gamma_neg)
    loss = -focus * likelihood.log()
    if mask is not None:
        loss = torch.where(mask.bool(), loss, torch.zeros_like(loss))
    return loss.sum() / len(probabilities)


def _check_requested(logits: Tensor, requested: Tensor) -> None:
    if logits.shape != requested.shape or logits.ndim != 2 or requested.dtype != torch.bool:
        raise ValueError(
            f"logits {tuple(logits.shape)} and requested {tuple(requested.shape)} {requested.dtype}:"
            " give (B, L) scores and a (B, L) bool mask"
        )
    if not requested.any(dim=1).all():
        rows = (~requested.any(dim=1)).nonzero().flatten().tolist()
        raise ValueError(f"rows {rows} request no label: each image needs at least one")
