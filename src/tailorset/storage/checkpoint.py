"""Training state on disk: safetensors for tensors, their metadata for the step. Nothing is pickled."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim import Optimizer

Part: TypeAlias = nn.Module | Optimizer


def save_checkpoint(path: Path, step: int, **parts: Part) -> None:
    """Write the state of modules and optimisers after `step` finished steps, atomically."""
    tensors = {
        f"{name}/{key}": value.detach().clone().contiguous()
        for name, part in parts.items()
        for key, value in _tensors(part).items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata={"step": str(step), "sha256": _digest(step, tensors)})
    os.replace(partial, path)


def load_checkpoint(path: Path, **parts: Part) -> int:
    """Restore parts in place; return the number of finished steps, 0 without a checkpoint.

    Raises:
        ValueError: the file is damaged or belongs to another model.
    """
    return _load(path, parts, remedy="delete it") if path.exists() else 0


def restore_checkpoint(path: Path, **parts: Part) -> int:
    """Restore parts in place from one of the checkpoints of a resume folder; return the number of finished steps.

    Raises:
        ValueError: the file is missing, damaged or belongs to another model.
    """
    return _load(path, parts, remedy=f"delete {path.parent}")


def _load(path: Path, parts: Mapping[str, Part], remedy: str) -> int:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            step = int(metadata["step"])
            stored = {key: file.get_tensor(key) for key in list(file.keys())}
        if _digest(step, stored) != metadata["sha256"]:
            raise ValueError("it differs from its checksum")
        for name, part in parts.items():
            prefix = f"{name}/"
            _restore(part, {k[len(prefix) :]: v for k, v in stored.items() if k.startswith(prefix)})
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"checkpoint {path} cannot be used ({error}); {remedy} to start this step again") from error
    return step


def _digest(step: int, tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 of a checkpoint's step and tensors."""
    total = hashlib.sha256(str(step).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        total.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def _tensors(part: Part) -> dict[str, torch.Tensor]:
    if isinstance(part, nn.Module):
        return part.state_dict()
    state = part.state_dict()["state"]
    return {
        f"{index}.{key}": torch.as_tensor(value)
        for index, entry in state.items()
        for key, value in entry.items()
        if value is not None
    }


def _restore(part: Part, tensors: dict[str, torch.Tensor]) -> None:
    if isinstance(part, nn.Module):
        part.load_state_dict(tensors)
        return
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
