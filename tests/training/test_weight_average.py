"""The moving average of weights: what it holds, what it leaves alone, and that it survives an interruption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tailorset.storage.checkpoint import load_checkpoint, save_checkpoint
from tailorset.training.weight_average import WeightAverage


def one_weight(value: float) -> nn.Module:
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(value)
    return module


def test_the_average_of_many_steps_is_the_textbooks() -> None:
    module, values = one_weight(0), [float(step % 7) for step in range(200)]
    average, expected = WeightAverage({"it": module}, 0.9), 0.0
    for count, value in enumerate(values, 1):
        module.weight.data.fill_(value)
        average.update()
        decay = min(0.9, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert float(module.weight) == pytest.approx(expected, rel=1e-5)
    assert float(module.weight) == values[-1]


def test_without_decay_it_is_the_weights_as_they_are() -> None:
    module = one_weight(1)
    average = WeightAverage({"it": module}, 0.0)
    module.weight.data.fill_(5)
    average.update()
    with average.applied():
        assert float(module.weight) == 5


def test_running_statistics_are_averaged_and_counters_are_not() -> None:
    norm = nn.BatchNorm1d(2)
    average = WeightAverage({"norm": norm}, 0.9)
    norm.running_mean.fill_(1)
    norm.num_batches_tracked.fill_(7)
    average.update()
    with average.applied():
        torch.testing.assert_close(norm.running_mean, torch.full((2,), 1 - 2 / 11))
        assert int(norm.num_batches_tracked) == 7


def test_an_error_within_leaves_the_trained_weights() -> None:
    module = one_weight(1)
    average = WeightAverage({"it": module}, 0.9)
    module.weight.data.fill_(3)
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert float(module.weight) == 3


def test_a_restored_average_goes_on(tmp_path: Path) -> None:
    module = one_weight(0)
    average = WeightAverage({"it": module}, 0.9)
    for step in range(6):
        if step == 3:
            save_checkpoint(tmp_path / "state.safetensors", step, average=average)
        module.weight.data.fill_(step)
        average.update()
    again = WeightAverage({"it": module}, 0.9)
    assert load_checkpoint(tmp_path / "state.safetensors", average=again) == 3
    for step in range(3, 6):
        module.weight.data.fill_(step)
        again.update()
    assert torch.equal(again.values[0], average.values[0])
