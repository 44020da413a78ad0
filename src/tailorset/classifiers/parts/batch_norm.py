"""Batch normalisation over the samples of all processes. torch's SyncBatchNorm supports GPUs only.

Shapes: N samples of this process, M of all, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from tailorset.compute import processes


class BatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d for one process; with several, all have the same running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) -> (N, C)."""
        if not self.training or processes.world_size() == 1:
            return super().forward(x)
        count = all_reduce(x.new_tensor(len(x)))  # M
        mean = all_reduce(x.sum(0)) / count  # (C,); a sum's gradient is summed over the processes, too
        variance = all_reduce((x - mean).square().sum(0)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return (x - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias
