"""Calibration: the scale and bias that suit scores to a loss, without touching their ranking."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tailorset.classifiers.parts.calibration import Calibration
from tailorset.training.contract import TrainingConfig
from tailorset.training.loop import annotated_loss


def test_starts_as_the_identity() -> None:
    logits = torch.randn(5, 3)
    assert torch.equal(Calibration()(logits), logits)


def test_finds_the_scale_and_bias_that_made_the_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(20_000, 2, generator=generator)
    labels = (torch.rand(logits.shape, generator=generator) < (0.5 * logits - 1).sigmoid()).float()
    calibration = Calibration()
    calibration.fit(logits, lambda p: F.binary_cross_entropy(p, labels))
    assert abs(calibration.log_scale.exp().item() - 0.5) < 0.05
    assert abs(calibration.bias.item() + 1) < 0.1
    assert (calibration(logits.sort(0).values).diff(dim=0) >= 0).all()
    assert all(parameter.grad is None for parameter in calibration.parameters())


def test_scores_far_from_zero_are_fitted_as_those_around_it() -> None:
    """Raw CLIP's logits are 20 to 30 for everything: uncentred, each probability is 1 and nothing can be learned."""
    generator, config = torch.Generator().manual_seed(0), TrainingConfig()
    logits = 3 * torch.randn(1000, 20, generator=generator)
    labels = (torch.rand(logits.shape, generator=generator) < (0.5 * logits - 3).sigmoid()).to(torch.int8)
    scores = []
    for shift in (0.0, 25.0):
        calibration = Calibration()
        calibration.fit(logits + shift, lambda p: annotated_loss(p, labels, config))
        scores.append(calibration(logits + shift).sigmoid().detach())
    torch.testing.assert_close(scores[1], scores[0], atol=1e-3, rtol=0)
