"""Deep features of a UNet kept from one sampling step for the next ones (DeepCache, Ma et al. 2024, CVPR)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class FeatureCache:
    """Lets a diffusers UNet run only its outermost blocks, reusing the last output of the inner blocks.

    While `reuse` is set, the inner blocks return their output from before it was set; it needs a batch of that size.
    """

    def __init__(self, unet: Any) -> None:
        self.reuse = False
        for block in (*unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1]):
            block.forward = self._remembering(block.forward)

    def _remembering(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        last = None

        def call(*inputs: Any, **others: Any) -> Any:
            nonlocal last
            if self.reuse:
                return last
            output = forward(*inputs, **others)
            last = None if torch.is_grad_enabled() else output  # a graph would keep all activations
            return output

        return call
