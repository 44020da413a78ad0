"""Trust measures by hand and against scikit-learn."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import f1_score

from tailorset.thresholds.measures import calibration_error, f1_metrics, risk_coverage, trust_figure, trust_metrics
from tailorset.thresholds.rules import Decisions, one_threshold


def random_case(num_images: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities that are true, and targets drawn from them."""
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(num_images, 3, generator=generator).double()
    return probabilities, (torch.rand(num_images, 3, generator=generator) < probabilities).to(torch.int8)


def test_calibration_error_by_hand() -> None:
    probabilities = torch.tensor([[0.9, 0.2], [0.9, 0.2], [0.1, 0.2], [0.1, 0.9]]).double()
    targets = torch.tensor([[1, 0], [0, 0], [0, 1], [0, -1]])
    first = (2 * abs(0.9 - 0.5) + 2 * abs(0.1 - 0.0)) / 4
    assert calibration_error(probabilities, targets) == pytest.approx((first + abs(0.2 - 1 / 3)) / 2, abs=1e-6)


def test_a_label_that_nobody_annotated_has_no_calibration_error() -> None:
    probabilities, targets = random_case()
    targets[:, 2] = -1
    assert calibration_error(probabilities, targets) == calibration_error(probabilities[:, :2], targets[:, :2])


def test_true_probabilities_have_little_error_and_distorted_ones_more() -> None:
    probabilities, targets = random_case(20_000)
    assert calibration_error(probabilities, targets) < 0.02
    assert calibration_error(probabilities.square(), targets) > 0.1


def test_f1_equals_scikit_learn() -> None:
    probabilities, targets = random_case()
    present = probabilities > 0.4
    expected = [f1_score(targets, present, average=average) for average in ("macro", "micro")]
    assert list(f1_metrics(present, targets).values()) == pytest.approx(expected, abs=1e-6)
    targets[:, 2] = 0
    expected_macro = f1_score(targets[:, :2], present[:, :2], average="macro")
    assert f1_metrics(present, targets)["f1_macro"] == pytest.approx(expected_macro, abs=1e-6)


def test_risk_coverage_by_hand() -> None:
    probabilities = torch.tensor([[0.9, 0.3], [0.6, 0.05], [0.5, 0.8]]).double()
    targets = torch.tensor([[1, 1], [0, 0], [-1, 1]])
    decisions = Decisions(probabilities, probabilities >= 0.4, torch.zeros(3, 2, dtype=torch.bool))
    # surest first: 0.95 absent, right; 0.9 present, right; 0.8 present, right; 0.7 absent, wrong; 0.6 present, wrong
    coverage, risk = risk_coverage(decisions, targets)
    assert coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert risk.tolist() == pytest.approx([0, 0, 0, 1 / 4, 2 / 5])
    metrics = trust_metrics(decisions, targets)
    assert metrics["aurc"] == pytest.approx((1 / 4 + 2 / 5) / 5)
    assert metrics["risk"] == pytest.approx(2 / 5)


def test_coverage_and_risk_of_what_is_answered() -> None:
    probabilities, targets = random_case()
    targets[:30] = -1
    abstained = (probabilities > 0.3) & (probabilities < 0.7)
    metrics = trust_metrics(Decisions(probabilities, probabilities >= 0.5, abstained), targets)
    answered = ~abstained[30:]
    wrong = (probabilities >= 0.5)[30:] != (targets[30:] == 1)
    assert metrics["coverage"] == pytest.approx(answered.double().mean().item())
    assert metrics["answered/risk"] == pytest.approx(wrong[answered].double().mean().item())
    assert metrics["answered/risk"] < metrics["risk"]


def test_nothing_answered_has_no_risk() -> None:
    probabilities, targets = random_case()
    everything = torch.ones_like(targets, dtype=torch.bool)
    metrics = trust_metrics(Decisions(probabilities, probabilities >= 0.5, everything), targets)
    assert metrics["coverage"] == 0
    assert "answered/risk" not in metrics


def test_the_figure_has_a_line_a_rule() -> None:
    probabilities, targets = random_case()
    decisions = one_threshold(["a", "b", "c"]).apply(probabilities)
    reliability, risk = trust_figure({"one": decisions, "same": decisions}, targets).axes
    assert len(reliability.lines) == 3
    assert len(risk.lines) == 2
