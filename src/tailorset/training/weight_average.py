"""Exponential moving average of the weights in training: validated and kept, because it is smoother than the last step.

Source: Polyak and Juditsky 1992; the start by (1 + n) / (10 + n) as in TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage(nn.Module):
    """Average of the trained parameters and of the floating-point buffers of some modules.

    decay: weight of the earlier average, less in the first steps; 0 = the weights as they are.
    """

    num_updates: Tensor

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._live = floating_tensors(modules)
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        self.values = nn.ParameterList(nn.Parameter(tensor.detach().clone(), False) for tensor in self._live)

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights after a step."""
        self.num_updates += 1
        count = int(self.num_updates)
        decay = min(self.decay, (1 + count) / (10 + count))
        for value, live in zip(self.values, self._live, strict=True):
            value.lerp_(live, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the modules hold the average inside the context; their weights are restored on exit."""
        own = [tensor.detach().clone() for tensor in self._live]
        _copy(self._live, self.values)
        try:
            yield
        finally:
            _copy(self._live, own)


def floating_tensors(modules: Mapping[str, nn.Module]) -> list[Tensor]:
    """Return the parameters and the floating-point buffers of some modules; counters are left out."""
    return [
        tensor
        for module in modules.values()
        for tensor in (*module.parameters(), *module.buffers())
        if tensor.is_floating_point()
    ]


@torch.no_grad()
def _copy(targets: list[Tensor], values: nn.ParameterList | list[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)
