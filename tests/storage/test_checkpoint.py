"""Training state on disk: what comes back, and that nothing damaged ever does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from tailorset.storage.checkpoint import load_checkpoint, save_checkpoint


def trained() -> tuple[nn.Module, AdamW]:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    optimizer = AdamW(module.parameters(), 0.1)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return module, optimizer


def test_module_optimiser_and_step_come_back(tmp_path: Path) -> None:
    module, optimizer = trained()
    save_checkpoint(tmp_path / "state.safetensors", 7, module=module, optimizer=optimizer)
    other = nn.Linear(3, 2)
    other_optimizer = AdamW(other.parameters(), 0.1)
    assert load_checkpoint(tmp_path / "state.safetensors", module=other, optimizer=other_optimizer) == 7
    assert torch.equal(other.weight, module.weight)
    ours, theirs = (each.state_dict()["state"][0]["exp_avg"] for each in (other_optimizer, optimizer))
    assert torch.equal(ours, theirs)
    assert load_checkpoint(tmp_path / "none.safetensors", module=other) == 0


def test_every_flipped_bit_is_refused_before_anything_is_restored(tmp_path: Path) -> None:
    module, optimizer = trained()
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, 7, module=module, optimizer=optimizer)
    whole, draw, other = path.read_bytes(), random.Random(0), nn.Linear(3, 2)
    before = other.weight.detach().clone()
    for _ in range(200):
        place = draw.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="cannot be used"):
            load_checkpoint(path, module=other, optimizer=AdamW(other.parameters(), 0.1))
    assert torch.equal(other.weight, before)
