"""The device that a name in params.yaml stands for."""

from __future__ import annotations

import torch


def resolve_device(device: str) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device; on a GPU float32 products are TF32 from then on, as convolutions always are.

    Raises:
        ValueError: `cuda` where there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but there is no CUDA device here: choose auto or cpu in params.yaml.")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    torch.backends.cuda.matmul.allow_tf32 = True
    return torch.device(chosen)
