"""Plug-ins that decide which generated images are kept, and with which labels.

A filter is one file here with a `Config` and `build(config, label_space) -> Filter`.
Shapes: N images, U unseen labels in label-space order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch


class FilterDecision(NamedTuple):
    """The decision on one image: its final labels (none if rejected), the reason, and the confidence."""

    kept: bool
    labels: tuple[str, ...]
    reason: str  # KEPT or RELABELLED of records.verdicts, or the label that failed and its fault
    confidence: float  # smallest grouped probability of the requested labels, in [0, 1]


class Filter(Protocol):
    """A rule on the scores that CLIP gives generated images."""

    def decide(self, logits: torch.Tensor, requested: Sequence[Sequence[str]]) -> list[FilterDecision]:
        """Return one decision per image.

        logits: (N, U) scores of the discriminator against all unseen labels, as `Clip.logits` returns them.
        requested: N lists of the unseen labels that each image was asked to show.
        """
        ...


def checked_scores(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the logits in double precision, so that no decision depends on rounding.

    Raises:
        ValueError: their shape is not (N, U), or some are not finite.
    """
    if logits.shape != mask.shape:
        raise ValueError(f"logits are {tuple(logits.shape)}, but images and unseen labels make {tuple(mask.shape)}")
    if not torch.isfinite(logits).all():
        raise ValueError(f"{int((~torch.isfinite(logits)).sum())} logits are not finite: score the images again")
    return logits.double()
