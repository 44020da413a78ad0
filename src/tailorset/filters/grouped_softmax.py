"""Keep an image if each requested label wins against all labels that were not requested, its ancestors left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field

from tailorset.clip.losses import grouped_softmax
from tailorset.filters import FilterDecision, checked_scores
from tailorset.filters.parts.ancestors import Ancestors
from tailorset.records import LabelSpace, requested_mask
from tailorset.records.verdicts import KEPT


class Config(BaseModel):
    """threshold: raise it for cleaner, lower it for more training images."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    threshold: float = Field(default=0.5, ge=0, lt=1)


class GroupedSoftmax:
    """Source: Zhang et al. 2024, sec. 3.2; the rule published for MS-COCO."""

    def __init__(self, config: Config, label_space: LabelSpace) -> None:
        self.threshold = config.threshold
        self.unseen = label_space.unseen
        self.ancestors = Ancestors(label_space)

    def decide(self, logits: torch.Tensor, requested: Sequence[Sequence[str]]) -> list[FilterDecision]:
        """Keep images whose requested labels all have a grouped probability above the threshold."""
        mask = torch.from_numpy(requested_mask(requested, self.unseen))
        apart = torch.zeros_like(mask)  # ancestors, which do not compete
        for row, labels in zip(apart, requested, strict=True):
            row[[self.unseen.index(name) for name in self.ancestors.of(labels)]] = True
        probabilities = grouped_softmax(checked_scores(logits, mask).masked_fill(apart, -torch.inf), mask)
        return [self._decision(row.tolist(), labels) for row, labels in zip(probabilities, requested, strict=True)]

    def _decision(self, probabilities: list[float], labels: Sequence[str]) -> FilterDecision:
        confidence, weakest = min((probabilities[self.unseen.index(label)], label) for label in labels)
        if confidence > self.threshold:
            return FilterDecision(True, (*labels, *self.ancestors.of(labels)), KEPT, confidence)
        return FilterDecision(False, (), f"{weakest} below threshold", confidence)


def build(config: Config, label_space: LabelSpace) -> GroupedSoftmax:
    """Return the filter for the unseen labels of a label space."""
    return GroupedSoftmax(config, label_space)
