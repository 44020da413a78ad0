"""The loss against hand computations, finite differences and timm."""

from __future__ import annotations

import math

import pytest
import torch
from timm.loss import AsymmetricLossMultiLabel

from tailorset.clip.losses import asymmetric_loss, grouped_softmax


def random_case(seed: int = 0, batch: int = 5, labels: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, labels, generator=generator, dtype=torch.float64)
    requested = torch.rand(batch, labels, generator=generator) < 0.4
    requested[:, 0] = True
    return logits, requested


def grouped_by_hand(logits: list[float], requested: list[bool]) -> list[float]:
    """Straight from the definition: one softmax per requested label over itself and the negatives."""
    negatives = [i for i, is_requested in enumerate(requested) if not is_requested]
    result = [0.0] * len(logits)
    positives = [i for i, is_requested in enumerate(requested) if is_requested]
    for p in positives:
        group = [p, *negatives]
        total = sum(math.exp(logits[i]) for i in group)
        result[p] = math.exp(logits[p]) / total
        for n in negatives:
            result[n] += math.exp(logits[n]) / total / len(positives)
    return result


def test_grouped_softmax_equals_its_definition() -> None:
    logits, requested = random_case()
    rows = [grouped_by_hand(*row) for row in zip(logits.tolist(), requested.tolist(), strict=True)]
    torch.testing.assert_close(grouped_softmax(logits, requested), torch.tensor(rows, dtype=torch.float64))


def test_a_single_requested_label_gives_the_plain_softmax() -> None:
    logits, _ = random_case()
    requested = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 3, 4]), 6).bool()
    torch.testing.assert_close(grouped_softmax(logits, requested), logits.softmax(dim=1))


def test_requested_labels_never_compete() -> None:
    requested = torch.tensor([[True, True, False, False]])
    weak, strong = torch.tensor([[1.0, 2.0, 0.0, -1.0], [1.0, 20.0, 0.0, -1.0]]).split(1)
    assert grouped_softmax(weak, requested)[0, 0] == grouped_softmax(strong, requested)[0, 0]
    assert grouped_softmax(strong, requested)[0, 1] > 0.999


def test_gradient_of_grouped_softmax_equals_finite_differences() -> None:
    logits, requested = random_case()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: grouped_softmax(x, requested), logits)


def test_gradient_of_the_loss_equals_finite_differences() -> None:
    logits, requested = random_case()

    def loss(scores: torch.Tensor) -> torch.Tensor:
        """Without a focal weight: that one is left out of the gradient on purpose."""
        return asymmetric_loss(grouped_softmax(scores, requested), requested, gamma_neg=0, gamma_pos=0, clip=0.0)

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_extreme_scores_stay_finite(scale: float) -> None:
    logits, requested = random_case()
    logits = (scale * logits).float().requires_grad_()
    loss = asymmetric_loss(grouped_softmax(logits, requested), requested, 4, 0, 0.05)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_an_image_that_misses_its_label_by_far_still_gets_a_gradient() -> None:
    logits = torch.tensor([[0.0, 50.0]], requires_grad=True)  # probability 2e-22
    requested = torch.tensor([[True, False]])
    asymmetric_loss(grouped_softmax(logits, requested), requested, 4, 0, 0.05).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] < -0.9


def test_without_other_labels_every_request_is_certain_and_has_no_gradient() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    probabilities = grouped_softmax(logits, torch.ones(2, 3, dtype=torch.bool))
    probabilities.sum().backward()
    assert probabilities.eq(1).all()
    assert logits.grad is not None
    assert logits.grad.eq(0).all()


def test_asymmetric_loss_equals_a_hand_computation() -> None:
    probabilities = torch.tensor([[0.8, 0.3, 0.04], [0.5, 0.5, 0.9]], dtype=torch.float64)
    targets = torch.tensor([[True, False, False], [True, True, False]])
    first = -(0.2**1) * math.log(0.8) - 0.25**4 * math.log(0.75)  # 0.04 is below the margin: no loss
    second = -2 * 0.5**1 * math.log(0.5) - 0.85**4 * math.log(0.15)
    loss = asymmetric_loss(probabilities, targets, gamma_neg=4, gamma_pos=1, clip=0.05)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-12)


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), [(4, 0, 0.05), (2, 1, 0.05), (0, 0, 0.0)])
def test_asymmetric_loss_and_gradient_equal_timm_on_sigmoids(gamma_neg: float, gamma_pos: float, clip: float) -> None:
    logits, targets = random_case()
    ours, theirs = logits.float().requires_grad_(), logits.float().requires_grad_()
    loss = asymmetric_loss(ours.sigmoid(), targets, gamma_neg, gamma_pos, clip)
    oracle = AsymmetricLossMultiLabel(gamma_neg, gamma_pos, clip, disable_torch_grad_focal_loss=True)(theirs, targets)
    torch.testing.assert_close(loss, oracle)
    loss.backward()
    oracle.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_focal_weight_carries_no_gradient() -> None:
    probability = torch.tensor([[0.6]], requires_grad=True)
    asymmetric_loss(probability, torch.tensor([[False]]), gamma_neg=4, gamma_pos=0, clip=0.0).backward()
    assert probability.grad is not None
    assert probability.grad.item() == pytest.approx(0.6**4 / 0.4)  # weight constant, derivative of -log(1 - p)


def test_masked_labels_count_for_nothing() -> None:
    probabilities = torch.tensor([[0.8, 0.0, 1.0]], requires_grad=True)
    targets = torch.tensor([[1, -1, -1]])
    loss = asymmetric_loss(probabilities, targets, 0, 0, 0.0, mask=targets >= 0)
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(0.8))
    assert probabilities.grad is not None
    assert probabilities.grad[0, 1:].eq(0).all()


@pytest.mark.parametrize(
    ("logits", "requested", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([[True, False, False], [False, False, False]]), r"rows \[1\]"),
        (torch.zeros(2, 3), torch.ones(2, 2, dtype=torch.bool), "shape|mask"),
        (torch.zeros(2, 3), torch.ones(2, 3), "bool"),
    ],
)
def test_grouped_softmax_refuses_what_makes_no_sense(
    logits: torch.Tensor, requested: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        grouped_softmax(logits, requested)


def test_asymmetric_loss_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        asymmetric_loss(torch.zeros(2, 3), torch.zeros(1, 3), 4, 0, 0.05)
    with pytest.raises(ValueError, match="empty batch"):
        asymmetric_loss(torch.zeros(0, 3), torch.zeros(0, 3), 4, 0, 0.05)
