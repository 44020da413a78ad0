"""An exponential moving average of the weights in training: what is validated and kept, smoother than the last step's.

Source: Polyak and Juditsky 1992; the start by (1 + n) / (10 + n) as in TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage(nn.Module):
    """The average of the trained parameters and of the floating-point buffers of some modules.

    decay: weight of what was averaged before, after a start in which it is less; 0 = the weights as they are.
    """

    num_updates: Tensor

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._live = [
            tensor
            for module in modules.values()
            for tensor in (*module.parameters(), *module.buffers())
            if tensor.is_floating_point()
        ]
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        self.values = nn.ParameterList(nn.Parameter(tensor.detach().clone(), False) for tensor in self._live)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.num_updates += 1
        count = int(self.num_updates)
        decay = min(self.decay, (1 + count) / (10 + count))
        for value, live in zip(self.values, self._live, strict=True):
            value.lerp_(live, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The modules hold the average within, and their own weights again after it."""
        own = [tensor.detach().clone() for tensor in self._live]
        _copy(self._live, self.values)
        try:
            yield
        finally:
            _copy(self._live, own)


@torch.no_grad()
def _copy(targets: list[Tensor], values: nn.ParameterList | list[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)
