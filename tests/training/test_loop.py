"""The training loop and its stage: schedule, columns, augmentation, resume, selection."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from tailorset.classifiers import Classifier, load_classifier
from tailorset.classifiers.dual_prompt import Config, DualPrompt, build
from tailorset.evaluation.selection import RAW_CLIP, START, History
from tailorset.records import LabelSpace
from tailorset.storage.image_set import ImageSet, Mixture
from tailorset.training.loop import (
    TrainingConfig,
    batch_indices,
    label_columns,
    learning_rate_factor,
    predict,
    train_epochs,
)

PIPELINE = Path(__file__).resolve().parents[2] / "pipeline"


@pytest.fixture(scope="module")
def stage_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_classifier_script", PIPELINE / "train_classifier.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def fresh(backbones: dict[str, str], label_space: LabelSpace) -> DualPrompt:
    torch.manual_seed(0)
    block = {"backbone": {"model": backbones["resnet"]}, "num_context_tokens": 4, "num_epochs": 3, "batch_size": 8}
    return build(Config.model_validate(block), label_space)


def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    stage_script: ModuleType,
    backbones: dict[str, str],
    label_space: LabelSpace,
    real: ImageSet,
    synthetic: ImageSet,
    val: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fit(classifier: DualPrompt, folder: str) -> tuple[Classifier, History]:
        (tmp_path / folder).mkdir(exist_ok=True)
        return stage_script.fit(
            classifier, Mixture([(real, 1), (synthetic, 1)]), val, label_space, classifier.config, 0, tmp_path / folder
        )

    whole = fresh(backbones, label_space)
    kept, history = fit(whole, "whole")
    assert [row["epoch"] for row in history] == [RAW_CLIP, START, 1, 2, 3]

    class Killed(Exception):
        pass

    def die_after_two(*args: Any, **keys: Any) -> None:
        if args[1] == 2:
            raise Killed
        save(*args, **keys)

    save = stage_script.save_checkpoint
    monkeypatch.setattr(stage_script, "save_checkpoint", die_after_two)
    with pytest.raises(Killed):
        fit(fresh(backbones, label_space), "cut")
    monkeypatch.setattr(stage_script, "save_checkpoint", save)
    resumed = fresh(backbones, label_space)
    again, told = fit(resumed, "cut")
    assert told == history
    for ours, theirs in ((whole, resumed), (kept, again)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name


def graded(
    stage_script: ModuleType,
    classifier: DualPrompt,
    data: Mixture,
    val: ImageSet,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    grades: list[float],
) -> tuple[Classifier, list[Classifier]]:
    """What is kept if raw CLIP, the start and each epoch get these grades on val, and copies of what was graded."""
    seen: list[Classifier] = []

    def validate(candidate: DualPrompt, images: ImageSet, space: LabelSpace) -> dict[str, float]:
        assert images is val
        seen.append(copy.deepcopy(candidate))
        return {"val/harmonic_map": grades[len(seen) - 1]}

    monkeypatch.setattr(stage_script, "validate", validate)
    kept, _ = stage_script.fit(classifier, data, val, classifier.label_space, classifier.config, 0, folder)
    return kept, seen


@pytest.mark.parametrize(
    ("grades", "best"),
    [
        ([0.1, 0.2, 0.4, 0.9, 0.5], 3),
        ([0.6, 0.5, 0.6, 0.4, 0.3], 0),  # training has to be better than raw CLIP, not as good
        ([0.5, 0.7, 0.6, 0.4, 0.7], 1),
    ],
)
def test_the_best_candidate_on_val_is_kept_raw_clip_and_the_start_among_them(
    grades: list[float],
    best: int,
    stage_script: ModuleType,
    backbones: dict[str, str],
    label_space: LabelSpace,
    real: ImageSet,
    synthetic: ImageSet,
    val: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    classifier, data = fresh(backbones, label_space), Mixture([(real, 1), (synthetic, 1)])
    kept, seen = graded(stage_script, classifier, data, val, tmp_path, monkeypatch, grades)
    kept.save(tmp_path / "classifier")
    scores = [predict(candidate, val.images) for candidate in (*seen, load_classifier(tmp_path / "classifier"))]
    assert torch.equal(scores[-1], scores[best])
    assert sum(torch.equal(scores[-1], other) for other in scores[:-1]) == 1


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
