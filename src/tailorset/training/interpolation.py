"""Weights between the start of training and its end: training may forget some of what zero-shot CLIP ranks well.

Source: WiSE-FT, Wortsman et al. 2022; for training on generated images, RegFT, Park et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from tailorset.storage.checkpoint import restore_checkpoint
from tailorset.training.weight_average import floating_tensors


class Interpolation:
    """Straight line between two stored states of some modules: weights and running statistics.

    start, trained: checkpoints of exactly these modules.
    """

    def __init__(self, modules: Mapping[str, nn.Module], start: Path, trained: Path) -> None:
        self._live = floating_tensors(modules)
        self._states = []
        for path in (start, trained):
            restore_checkpoint(path, **modules)
            self._states.append([tensor.detach().clone() for tensor in self._live])

    @torch.no_grad()
    def apply(self, share: float) -> None:
        """Let the modules hold (1 - share) * start + share * trained."""
        for live, start, trained in zip(self._live, *self._states, strict=True):
            live.copy_(torch.lerp(start, trained, share))
