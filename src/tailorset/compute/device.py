"""The device that a name in params.yaml stands for, and its arithmetic."""

from __future__ import annotations

import torch

from tailorset.messages import unknown

DEVICES = ("auto", "cpu", "cuda")


def resolve_device(device: str) -> torch.device:
    """Return the device of `auto`, `cpu` or `cuda`; `auto` is a GPU if there is one.

    Raises:
        ValueError: `cuda` without a CUDA device, or a name that is none of these.
    """
    if device not in DEVICES:
        raise ValueError(unknown("device", device, DEVICES))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but there is no CUDA device here: choose auto or cpu.")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return torch.device(chosen)


def use_tf32() -> None:
    """Compute float32 products as TF32 on a GPU from now on, as PyTorch's convolutions always are."""
    torch.backends.cuda.matmul.allow_tf32 = True
