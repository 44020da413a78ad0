"""Metrics against scikit-learn and hand computations."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from tailorset.evaluation.metrics import (
    average_precisions,
    harmonic_map,
    multilabel_metrics,
    top_k_metrics,
    zero_shot_metrics,
)
from tailorset.records import LabelSpace


def random_case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(60, 7, generator=generator).mul(10).round().div(3)  # with ties, outside [0, 1]
    return scores, (torch.rand(60, 7, generator=generator) < 0.3).to(torch.int8)


def test_average_precision_equals_scikit_learn() -> None:
    scores, targets = random_case()
    expected = [average_precision_score(targets[:, i], scores[:, i]) for i in range(7)]
    assert average_precisions(scores, targets).tolist() == pytest.approx(expected, abs=1e-6)
    assert multilabel_metrics(scores, targets)["map"] == pytest.approx(sum(expected) / 7, abs=1e-6)


def test_saturated_scores_keep_their_order() -> None:
    scores = torch.tensor([[1000.0], [999.0], [998.0]])
    assert average_precisions(scores, torch.tensor([[1], [1], [0]])).item() == 1.0


def test_labels_without_a_positive_are_left_out_and_counted() -> None:
    scores, targets = random_case()
    targets[:, 2] = 0
    metrics = multilabel_metrics(scores, targets)
    others = [average_precision_score(targets[:, i], scores[:, i]) for i in range(7) if i != 2]
    assert metrics["map"] == pytest.approx(sum(others) / 6, abs=1e-6)
    assert metrics["num_labels_without_positive"] == 1
    assert average_precisions(scores, targets)[2].isnan()


def test_entries_that_are_not_annotated_do_not_count() -> None:
    scores, targets = random_case()
    targets[10:40, 1] = -1
    known = targets[:, 1] >= 0
    expected = average_precision_score(targets[known, 1], scores[known, 1])
    assert average_precisions(scores, targets)[1].item() == pytest.approx(expected, abs=1e-6)


def test_f1_at_3_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4]])
    targets = torch.tensor([[1, 0, 1, 1], [1, 0, 0, 1]])
    # predicted {0, 1, 2} and {1, 2, 3}: 3 right of 6 predicted, 5 present
    expected = {"precision_at_3": 3 / 6, "recall_at_3": 3 / 5, "f1_at_3": 6 / 11}
    assert top_k_metrics(scores, targets, 3) == pytest.approx(expected)


def test_top_k_equals_scikit_learn() -> None:
    scores, targets = random_case(1)
    scores += torch.rand(scores.shape) * 1e-3  # no ties
    predicted = torch.zeros_like(targets).scatter_(1, scores.topk(5).indices, 1)
    expected = [measure(targets, predicted, average="micro") for measure in (precision_score, recall_score, f1_score)]
    assert list(top_k_metrics(scores, targets, 5).values()) == pytest.approx(expected, abs=1e-6)


def test_fewer_labels_than_k_are_all_predicted() -> None:
    scores, targets = torch.rand(2, 2), torch.tensor([[1, 0], [1, 1]])
    expected = {"precision_at_3": 3 / 4, "recall_at_3": 1.0, "f1_at_3": 6 / 7}
    assert top_k_metrics(scores, targets, 3) == pytest.approx(expected)


def test_undefined_metrics_are_errors_not_zeros() -> None:
    scores, targets = random_case()
    with pytest.raises(ValueError, match="no label has a positive"):
        multilabel_metrics(scores, torch.zeros_like(targets))
    broken = scores.clone()
    broken[0, 0] = math.nan
    with pytest.raises(ValueError, match="1 scores are not finite"):
        multilabel_metrics(broken, targets)
    with pytest.raises(ValueError, match="choose 1 or more"):
        top_k_metrics(random_case()[0], targets, 0)
    with pytest.raises(ValueError, match="must both be"):
        average_precisions(scores, targets[:, :3])


@pytest.fixture
def label_space() -> LabelSpace:
    labels = [{"name": f"label {i}", "seen": i not in (1, 4, 6)} for i in range(7)]
    return LabelSpace.model_validate({"name": "seven", "labels": labels})


def test_zsl_and_gzsl_each_have_their_own_figures(label_space: LabelSpace) -> None:
    scores, targets = random_case()
    metrics = zero_shot_metrics(scores, targets, label_space)
    values = average_precisions(scores, targets)
    assert metrics["zsl/map"] == pytest.approx(values[[1, 4, 6]].mean().item())
    assert metrics["gzsl/map"] == pytest.approx(values.mean().item())
    assert metrics["zsl/f1_at_3"] == top_k_metrics(scores[:, [1, 4, 6]], targets[:, [1, 4, 6]], 3)["f1_at_3"]
    assert metrics["gzsl/f1_at_3"] == top_k_metrics(scores, targets, 3)["f1_at_3"]
    z, g = metrics["zsl/map"], metrics["gzsl/map"]
    assert harmonic_map(metrics) == pytest.approx(1 / ((1 / z + 1 / g) / 2))


def test_scores_are_normalised_among_the_labels_compared(label_space: LabelSpace) -> None:
    scores, targets = random_case()
    shapes: list[tuple[int, ...]] = []

    def normalise(columns: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(columns.shape))
        return columns

    zero_shot_metrics(scores, targets, label_space, normalise=normalise)
    assert shapes == [(60, 3), (60, 7)]
