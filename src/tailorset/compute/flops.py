"""Floating-point operations, counted by torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from torch.utils.flop_counter import FlopCounterMode


def flop_counter(custom_mapping: Mapping[Any, Callable[..., int]] | None = None) -> FlopCounterMode:
    """Return a counter with `get_total_flops()`.

    It does not count by module: torch's module tracker hooks into every tensor and so keeps alive what gradient
    checkpointing frees. In a dry run on fake tensors, an image of 768 px took 14 GiB instead of 10.
    """
    counter = FlopCounterMode(display=False, custom_mapping=dict(custom_mapping or {}))
    counter.mod_tracker = _Everything()  # type: ignore[assignment]
    return counter


class _Everything(nullcontext[None]):
    """Stands in for torch's module tracker: whatever runs belongs to one module."""

    parents = frozenset({"Global"})
