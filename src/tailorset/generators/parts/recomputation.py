"""Calls that are repeated in the backward pass instead of keeping what they computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def recomputed(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that keeps only its inputs for the backward pass, where `call` runs again."""

    def checkpointed(*inputs: Any, **others: Any) -> Any:
        if not torch.is_grad_enabled():
            return call(*inputs, **others)
        return checkpoint(call, *inputs, use_reentrant=False, **others)

    return checkpointed
