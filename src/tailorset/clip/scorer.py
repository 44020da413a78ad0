"""Scores of images against labels by a CLIP, compared for the labels that were requested.

Shapes: B images of a batch, N images, L labels that are compared, U unseen labels, D width of CLIP's embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tailorset.clip.losses import grouped_softmax
from tailorset.clip.model import CLIP_MEMORY_REMEDY, Clip
from tailorset.clip.settings import Role
from tailorset.compute.memory import ShrinkingBatches
from tailorset.records import Prompt, requested_mask

ACCEPTED_ABOVE = 0.5  # grouped probability that counts as "shows the label"
SCORED_AT_ONCE = 64  # images; fewer if the memory is too small


class LabelScorer:
    """A CLIP that scores images against fixed labels; their text features are computed once."""

    def __init__(self, clip: Clip, labels: Sequence[str], template: str) -> None:
        self.clip = clip
        self.labels = tuple(labels)
        self.template = template
        self._text_features = clip.encode_texts(self.labels, template)  # (L, D)

    def against(self, labels: Sequence[str]) -> LabelScorer:
        """Return a scorer with the same CLIP for these labels."""
        return self if tuple(labels) == self.labels else LabelScorer(self.clip, labels, self.template)

    def requested(self, prompts: Sequence[Prompt]) -> Tensor:
        """(B, L) bool: the labels that each prompt requests."""
        mask = requested_mask([prompt.labels for prompt in prompts], self.labels)
        return torch.tensor(mask, device=self.clip.device)

    def probabilities(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, L) grouped probabilities of images (B, 3, H, W) in [0, 1]."""
        return grouped_softmax(self.clip.logits(images, self._text_features), self.requested(prompts))

    @torch.no_grad()
    def weakest(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B,) the lowest grouped probability among each image's requested labels."""
        return weakest_requested(self.probabilities(images, prompts), self.requested(prompts))


def weakest_requested(probabilities: Tensor, requested: Tensor) -> Tensor:
    """(B,) the lowest probability of a requested label; probabilities (B, L), requested (B, L) bool."""
    return probabilities.masked_fill(~requested, 1.0).amin(dim=1)


def acceptance(scorer: LabelScorer, images: Tensor, prompts: Sequence[Prompt]) -> float:
    """Share of the images (N, 3, H, W) in which every requested label has a probability above one half."""
    batches = ShrinkingBatches(SCORED_AT_ONCE, "scoring", CLIP_MEMORY_REMEDY)
    parts = batches.over(len(prompts), lambda part: scorer.weakest(images[part], prompts[part]))
    weakest = torch.cat([part for _, part in parts])
    return float((weakest > ACCEPTED_ABOVE).double().mean())


def requested_probabilities(
    rows: Sequence[Mapping[str, Any]], unseen: Sequence[str], role: Role = "discriminator"
) -> np.ndarray:
    """(N, U) grouped probabilities of the requested labels, NaN for the rest, by the stored scores of that role."""
    requested = torch.from_numpy(requested_mask([row["labels"] for row in rows], unseen))
    logits = torch.tensor(np.array([row[f"{role}_logits"] for row in rows]), dtype=torch.float64)
    return grouped_softmax(logits, requested).masked_fill(~requested, torch.nan).numpy()


def weakest_stored(
    rows: Sequence[Mapping[str, Any]], unseen: Sequence[str], role: Role = "discriminator"
) -> np.ndarray:
    """(N,) the lowest grouped probability among each image's requested labels, by the stored scores of that role."""
    return np.nanmin(requested_probabilities(rows, unseen, role), axis=1)


def passes(
    rows: Sequence[Mapping[str, Any]], unseen: Sequence[str], threshold: float, role: Role = "discriminator"
) -> np.ndarray:
    """(N,) bool: every requested label's grouped probability exceeds `threshold`."""
    return weakest_stored(rows, unseen, role) > threshold
