"""What a CLIP says of the labels that prompts asked for.

Letters: B images of a batch, N images, L labels that are compared, D width of CLIP's embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tailorset.clip.losses import grouped_softmax
from tailorset.clip.model import MEMORY_REMEDY as CLIP_REMEDY
from tailorset.clip.model import Clip
from tailorset.compute.memory import ShrinkingBatches
from tailorset.records import Prompt

Row = Mapping[str, Any]  # one row of the synthetic manifest
ACCEPTED_ABOVE = 0.5  # grouped probability that counts as "shows the label"


class Scorer:
    """A CLIP that scores images against some labels; their text features are computed once."""

    def __init__(self, clip: Clip, labels: Sequence[str], template: str) -> None:
        self.clip, self.labels, self.template = clip, tuple(labels), template
        self._text_features = clip.encode_texts(self.labels, template)  # (L, D)

    def against(self, labels: Sequence[str]) -> Scorer:
        """The same CLIP, which compares these labels."""
        return self if tuple(labels) == self.labels else Scorer(self.clip, labels, self.template)

    def requested(self, prompts: Sequence[Prompt]) -> Tensor:
        """(B, L) bool: the labels each prompt asks for."""
        rows = [[label in prompt.labels for label in self.labels] for prompt in prompts]
        return torch.tensor(rows, device=self.clip.device)

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


def acceptance(scorer: Scorer, images: Tensor, prompts: Sequence[Prompt], batch_size: int = 64) -> float:
    """Share of the images (N, 3, H, W) in which, to this CLIP, every requested label is above one half."""
    batches = ShrinkingBatches(batch_size, "scoring", CLIP_REMEDY)
    parts = batches.over(len(prompts), lambda part: scorer.weakest(images[part], prompts[part]))
    weakest = torch.cat([part for _, part in parts])
    return float((weakest > ACCEPTED_ABOVE).double().mean())


def requested_probabilities(rows: Sequence[Row], unseen: Sequence[str], scorer: str = "discriminator") -> np.ndarray:
    """(N, U) grouped softmax probabilities of requested labels, NaN for others; scorer: discriminator or judge."""
    mask = torch.tensor([[label in row["labels"] for label in unseen] for row in rows])  # (N, U)
    logits = torch.tensor(np.array([row[f"{scorer}_logits"] for row in rows]), dtype=torch.float64)
    return grouped_softmax(logits, mask).masked_fill(~mask, torch.nan).numpy()


def passes(rows: Sequence[Row], unseen: Sequence[str], threshold: float, scorer: str = "discriminator") -> np.ndarray:
    """(N,) bool: every requested label's grouped probability exceeds `threshold`."""
    return np.nanmin(requested_probabilities(rows, unseen, scorer), axis=1) > threshold
