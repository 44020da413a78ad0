"""Global feature fusion: a trainable branch next to frozen layers that mixes the whole image into each position.

Shapes: B images of a batch, C channels, R reduced channels, K heads, D values per head, P = H * W positions.
Source: Zhang et al. 2024 (arXiv 2404.03144), plug-in "global feature fusion".
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from tailorset.clip.dense_features import timm_transformer
from tailorset.compute import processes

if TYPE_CHECKING:
    from open_clip.modified_resnet import ModifiedResNet

NEAR_ZERO = 1e-4  # std of the normalisation's scale at the start


class GlobalBranch(nn.Module):
    """Aggregate the positions to one vector per head and broadcast it back, gated.

    Narrow layers are reduced to no fewer channels than heads. Biases that a softmax over positions or the
    normalisation cancels are left out, so every parameter has a gradient.
    """

    def __init__(self, channels: int, reduction: int = 4, num_heads: int = 8) -> None:
        super().__init__()
        reduced = max(num_heads, channels // reduction)
        values = num_heads * (reduced // num_heads)
        self.num_heads = num_heads
        self.reduce = nn.Linear(channels, reduced)  # a 1x1 convolution, positions first
        self.aggregate = nn.Linear(reduced, num_heads, bias=False)
        self.broadcast = nn.Linear(2 * reduced, num_heads)
        self.value = nn.Linear(reduced, values, bias=False)
        self.output = nn.Linear(values, channels, bias=False)
        self.norm = BatchNorm(channels)
        nn.init.normal_(self.norm.weight, std=NEAR_ZERO)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, P, C) -> (B, P, C), near zero at the start."""
        reduced = self.reduce(x).relu()  # (B, P, R)
        mean = reduced.mean(1, keepdim=True).expand_as(reduced)
        # the mean shifts a head's logits alike everywhere: the softmax over positions cannot see it, the sigmoid can
        weights = self.aggregate(reduced).softmax(1).unsqueeze(-1)  # (B, P, K, 1)
        gates = self.broadcast(torch.cat([reduced, mean], -1)).sigmoid().unsqueeze(-1)  # (B, P, K, 1)
        values = self.value(reduced).unflatten(-1, (self.num_heads, -1))  # (B, P, K, D)
        pooled = (weights * values).sum(1, keepdim=True)  # (B, 1, K, D)
        fused = self.output((gates * pooled).flatten(2))  # (B, P, C)
        return self.norm(fused.flatten(0, 1)).view_as(fused)


def fuse(visual: nn.Module) -> nn.ModuleList:
    """Attach a branch to each 3x3 convolution (ModifiedResNet) or to the patches of each block (vision transformers).

    The branches are returned, not stored in `visual`: its parameters, keys and training mode stay as they are.

    Raises:
        ValueError: the tower is none of them.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, ModifiedResNet):
        return _fuse_resnet(visual)
    if isinstance(visual, VisionTransformer):
        channels = visual.conv1.out_channels
        return _fuse_blocks(visual.transformer.resblocks, channels, num_prefix=1)
    if trunk := timm_transformer(visual):
        return _fuse_blocks(trunk.blocks, trunk.embed_dim, trunk.num_prefix_tokens)
    raise ValueError(
        f"no fusion for a {type(visual).__name__}: choose an open_clip ModifiedResNet or VisionTransformer backbone, "
        "a vision transformer of timm's, or set fusion: false"
    )


def _fuse_resnet(visual: ModifiedResNet) -> nn.ModuleList:
    from open_clip.modified_resnet import Bottleneck

    branches = nn.ModuleList()
    for block in visual.modules():
        if isinstance(block, Bottleneck):
            branch = GlobalBranch(block.conv2.in_channels)
            block.conv2.register_forward_hook(partial(_add_to_map, branch))
            branches.append(branch)
    return branches


def _fuse_blocks(blocks: Iterable[nn.Module], channels: int, num_prefix: int) -> nn.ModuleList:
    """num_prefix: tokens before the patches, like the class token."""
    branches = nn.ModuleList()
    for block in blocks:
        branch = GlobalBranch(channels)
        block.register_forward_hook(partial(_add_to_tokens, branch, num_prefix))
        branches.append(branch)
    return branches


def _add_to_map(branch: GlobalBranch, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """inputs, output: (B, C, H, W); positions are a view where the memory format is channels_last."""
    positions = inputs[0].permute(0, 2, 3, 1)  # (B, H, W, C)
    fused = branch(positions.flatten(1, 2)).view_as(positions)
    return output + fused.permute(0, 3, 1, 2)


def _add_to_tokens(branch: GlobalBranch, num_prefix: int, _: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """inputs, output: (B, prefix + P, C), the prefix untouched."""
    fused = branch(inputs[0][:, num_prefix:])
    return torch.cat([output[:, :num_prefix], output[:, num_prefix:] + fused], 1)


class BatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d over the samples of all processes, N of this one and M of all: SyncBatchNorm supports GPUs only.

    All processes have the same running statistics.
    """

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
