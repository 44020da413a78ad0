"""A dual-prompt classifier to which labels were added: the scores of the earlier ones are unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tailorset.classifiers.dual_prompt import DualPrompt
from tailorset.classifiers.parts.calibration import Calibration
from tailorset.classifiers.parts.saved import write_saved


class GrownPrompt(DualPrompt):
    """groups: number of labels that were learned together: first those of training, then those of each addition.

    Each group is a separate contiguous matrix. In one matrix of all labels, or a view of it, products may be summed in
    another order, which would change the last digits of the earlier labels' scores. The cache covers the first group.
    """

    def __init__(self, groups: Sequence[int], *parts: Any) -> None:
        super().__init__(*parts)
        self.groups = list(groups)
        self.calibration = Calibration(len(self.labels))

    def of_features(self, dense: Tensor, pooled: Tensor, label_indices: Sequence[int] | None = None) -> Tensor:
        """Return the logits as `DualPrompt.of_features` does."""
        parts = [self.difference(dense, pooled, text.contiguous()) for text in self.text_features.split(self.groups, 1)]
        trained, added = self.calibration(torch.cat(parts, 1)).tensor_split([self.groups[0]], 1)
        logits = torch.cat([self.cache(trained, pooled, list(range(self.groups[0]))), added], 1)
        return logits if label_indices is None else logits[:, list(label_indices)]

    def save(self, folder: Path) -> None:
        """Write what `DualPrompt.save` does, and the groups."""
        others: dict[str, float | list[int]] = {"logit_scale": self.logit_scale, "groups": self.groups}
        write_saved(folder, "dual_prompt", self, self.config, self.label_space, self.vision, **others)
