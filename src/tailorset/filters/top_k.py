"""Keep an image if its requested labels are among the best k, and add the labels that it clearly shows as well."""

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
    """k: number of best labels among which each requested one must be; extra_threshold: softmax probability over all
    unseen labels above which a label that was not requested counts as present."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    k: int = Field(default=7, ge=1)
    extra_threshold: float = Field(default=0.1, ge=0, le=1)


class TopK:
    """Source: Zhang et al. 2024, sec. 3.2; the rule published for NUS-WIDE with its label hierarchy."""

    def __init__(self, config: Config, label_space: LabelSpace) -> None:
        self.config, self.unseen, self.ancestors = config, label_space.unseen, Ancestors(label_space)

    def decide(self, logits: torch.Tensor, requested: Sequence[Sequence[str]]) -> list[FilterDecision]:
        """Keep images whose requested labels are all among the k best of the unseen labels."""
        mask = torch.from_numpy(requested_mask(requested, self.unseen))
        scores = checked_scores(logits, mask)
        grouped = grouped_softmax(scores, mask)
        best = scores.topk(min(self.config.k, len(self.unseen)), dim=1).indices  # (N, k)
        rows = zip(grouped.tolist(), scores.softmax(dim=1).tolist(), best.tolist(), requested, strict=True)
        return [self._decision(*row) for row in rows]

    def _decision(
        self, grouped: list[float], softmax: list[float], best: list[int], labels: Sequence[str]
    ) -> FilterDecision:
        confidence = min(grouped[self.unseen.index(label)] for label in labels)
        top = [self.unseen[index] for index in best]
        missing = [label for label in labels if label not in top]
        if missing:
            return FilterDecision(False, (), f"{missing[0]} not among the {self.config.k} best", confidence)
        extras = [n for n, i in zip(top, best, strict=True) if softmax[i] > self.config.extra_threshold]
        shown = tuple(dict.fromkeys((*labels, *extras)))
        return FilterDecision(True, (*shown, *self.ancestors.of(shown)), KEPT, confidence)


def build(config: Config, label_space: LabelSpace) -> TopK:
    """Return the filter for the unseen labels of a label space."""
    return TopK(config, label_space)
