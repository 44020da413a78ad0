"""The training loop and its stage: schedule, columns, augmentation, resume, selection."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from tailorset.records import LabelSpace
from tailorset.storage.image_set import ImageSet
from tailorset.training.loop import (
    TrainingConfig,
    batch_indices,
    label_columns,
    learning_rate_factor,
    predict,
    train_epochs,
)


class Recorder(nn.Module):
    """A classifier that notes which image rows and columns it was asked for and answers by one weight a label."""

    def __init__(self, num_labels: int, on_step: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_labels))
        self.on_step = on_step

    def forward(self, images: torch.Tensor, label_indices: list[int]) -> torch.Tensor:
        self.on_step()
        return self.weights[label_indices].sigmoid().expand(len(images), -1)


def test_schedule_steps_once_an_epoch_and_never_climbs_after_warm_up(real: ImageSet) -> None:
    rates: list[float] = []
    classifier = Recorder(5, on_step=lambda: rates.append(optimizer.param_groups[0]["lr"]))
    optimizer = SGD(classifier.parameters(), 0.1)
    epochs = list(train_epochs(classifier, real, {"it": optimizer}, TrainingConfig(num_epochs=6, batch_size=4), seed=0))
    steps_an_epoch = 3
    by_epoch = [set(rates[i : i + steps_an_epoch]) for i in range(0, len(rates), steps_an_epoch)]
    assert all(len(rate) == 1 for rate in by_epoch)
    values = [rate.pop() for rate in by_epoch]
    assert values == [epoch["learning_rate/it"] for epoch in epochs]
    assert values[0] == 0.05
    assert values[1] == 0.1
    assert values[1:] == sorted(set(values[1:]), reverse=True)
    assert values[-1] > 0
    expected = 0.1 * 0.5 * (1 + math.cos(math.pi * 2 / 5))
    assert values[3] == pytest.approx(expected) == 0.1 * learning_rate_factor(3, 6, 1)


def test_targets_stay_in_step_with_the_columns_of_a_label_subset() -> None:
    """Label l is present in all images exactly if l is even: each column must be pulled its own way."""
    num_labels = 30
    targets = (torch.arange(num_labels) % 2 == 0).to(torch.int8).expand(16, -1)
    data = ImageSet(tuple(map(str, range(16))), torch.zeros(16, 3, 4, 4, dtype=torch.uint8), targets)
    classifier = Recorder(num_labels)
    config = TrainingConfig(num_epochs=30, batch_size=4, labels_per_step=7, gamma_neg=0, gamma_pos=0, clip=0)
    list(train_epochs(classifier, data, {"it": SGD(classifier.parameters(), 1.0)}, config, seed=0))
    assert ((classifier.weights > 0.5) == (targets[0] == 1)).all()
    assert ((classifier.weights < -0.5) == (targets[0] == 0)).all()


def test_label_subsets_are_ascending_and_cover_all_labels() -> None:
    drawn = [label_columns(20, 6, 0, 0, step) for step in range(40)]
    assert all(columns == sorted(set(columns)) and len(columns) == 6 for columns in drawn)
    assert set().union(*drawn) == set(range(20))
    assert label_columns(5, None, 0, 0, 0) == label_columns(5, 9, 0, 0, 0) == [0, 1, 2, 3, 4]


def test_annotations_of_unseen_labels_come_from_generated_images_only(real: ImageSet, label_space: LabelSpace) -> None:
    classifier = Recorder(5)
    list(
        train_epochs(classifier, real, {"it": SGD(classifier.parameters(), 1.0)}, TrainingConfig(num_epochs=2), seed=0)
    )
    moved = {name for name, weight in zip(label_space.names, classifier.weights.tolist(), strict=True) if weight}
    assert moved == set(label_space.seen)


@pytest.mark.parametrize(("num_images", "batch_size"), [(12, 5), (11, 5), (5, 5), (1, 5)])
def test_an_epoch_visits_every_image_once(num_images: int, batch_size: int) -> None:
    batches = batch_indices(num_images, batch_size, 0, 0)
    assert sorted(index for batch in batches for index in batch) == list(range(num_images))
    assert num_images == 1 or min(map(len, batches)) > 1
    assert batch_indices(50, 8, 0, 1) != batch_indices(50, 8, 0, 2)


def test_a_loss_that_is_not_finite_stops(real: ImageSet) -> None:
    classifier = Recorder(5)
    nn.init.constant_(classifier.weights, math.nan)
    with pytest.raises(FloatingPointError, match="epoch 1, step 1"):
        list(
            train_epochs(
                classifier, real, {"it": SGD(classifier.parameters(), 0.1)}, TrainingConfig(num_epochs=2), seed=0
            )
        )


def test_a_batch_that_does_not_fit_names_the_key_to_lower(real: ImageSet) -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    classifier = Recorder(5, on_step=full)
    epochs = train_epochs(
        classifier, real, {"it": SGD(classifier.parameters(), 0.1)}, TrainingConfig(batch_size=4), seed=0
    )
    with pytest.raises(MemoryError, match=r"lower train_classifier\.batch_size"):
        next(epochs)


def test_predictions_stay_the_same_where_memory_runs_out(real: ImageSet, failing_twice: Callable[..., Any]) -> None:
    classifier = Recorder(5)
    classifier.forward = lambda images: images.mean((1, 2, 3))[:, None]
    expected = predict(classifier, real.images, batch_size=len(real))
    calls = failing_twice(classifier, "forward")
    assert torch.equal(predict(classifier, real.images, batch_size=len(real)), expected)
    assert calls[:4] == [len(real), len(real) // 2, len(real) // 2, len(real) // 4]
