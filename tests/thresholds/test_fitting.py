"""Fitting on simulated scores whose calibration, shares and best threshold are known."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from tailorset.thresholds import fitting
from tailorset.thresholds.fitting import Affine

SCALE, BIAS = torch.tensor([3.0, 2.5, 3.5]).double(), torch.tensor([-1.0, 0.5, -2.0]).double()
NAMES = ("a", "b", "c")


def simulated(num_images: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and targets drawn from sigmoid(SCALE * logits + BIAS)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_images, 3, generator=generator).double()
    drawn = torch.rand(num_images, 3, generator=generator)
    return logits, (drawn < Affine(SCALE, BIAS)(logits)).to(torch.int8)


def gaussian(shares: Tensor, num_images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits N(-0.5, 0.5^2) without and N(0.5, 0.5^2) with the label: truly sigmoid(4 logit + logit(share))."""
    generator = torch.Generator().manual_seed(seed)
    shown = torch.rand(num_images, len(shares), generator=generator) < shares
    noise = torch.randn(num_images, len(shares), generator=generator).double()
    return shown.double() - 0.5 + 0.5 * noise, shown.to(torch.int8)


def test_platt_recovers_a_known_transform() -> None:
    fitted = fitting.fit_platt(*simulated(20_000), NAMES)
    assert fitted.scale.tolist() == pytest.approx(SCALE.tolist(), rel=0.06)
    assert fitted.bias.tolist() == pytest.approx(BIAS.tolist(), abs=0.1)


def test_unannotated_entries_do_not_count() -> None:
    logits, targets = simulated(2_000)
    padded = torch.cat([targets, torch.full((500, 3), -1, dtype=torch.int8)])
    fitted = fitting.fit_platt(torch.cat([logits, torch.full((500, 3), 9.0)]), padded, NAMES)
    expected = fitting.fit_platt(logits, targets, NAMES)
    torch.testing.assert_close(fitted.scale, expected.scale, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fitted.bias, expected.bias, rtol=1e-4, atol=1e-4)


def test_few_images_borrow_the_scale_of_the_others() -> None:
    logits, targets = simulated(4_000)
    targets[40:, 2] = -1
    targets[:40, 2] = (logits[:40, 2] > 0.6).to(torch.int8)  # separable: alone its scale would go to infinity
    fitted = fitting.fit_platt(logits, targets, NAMES)
    assert 2 < float(fitted.scale[2]) < 9


def test_a_known_shift_of_the_shares_is_recovered() -> None:
    source, target = torch.tensor([0.5, 0.3]).double(), torch.tensor([0.1, 0.4]).double()
    truth = Affine(torch.full((2,), 4.0).double(), source.logit())
    photos, _ = gaussian(target, 20_000, seed=1)
    shifted = fitting.shift_priors(truth, source, photos)
    assert shifted(photos).mean(0).tolist() == pytest.approx(target.tolist(), abs=0.01)
    assert (shifted.bias - target.logit()).abs().max() < 0.1


def test_seen_labels_get_the_calibration_of_the_photos() -> None:
    annotated = gaussian(torch.tensor([0.5, 0.3]), 8_000, seed=2)
    photos, _ = gaussian(torch.tensor([0.1, 0.4]), 20_000, seed=3)
    fitted = fitting.fit_seen(*annotated, photos, ("a", "b"))
    assert fitted.scale.tolist() == pytest.approx([4.0, 4.0], rel=0.08)
    assert fitted(photos).mean(0).tolist() == pytest.approx([0.1, 0.4], abs=0.02)


def test_the_mixture_finds_scores_that_moved_and_shrank() -> None:
    logits, _ = gaussian(torch.tensor([0.2, 0.4]), 20_000, seed=4)
    photos = 0.6 * logits - 0.3  # truly sigmoid(4 / 0.6 * photos + 2 + logit(share))
    start = Affine(torch.full((2,), 4.0).double(), torch.tensor([0.3, 0.3]).double())
    fitted = fitting.fit_mixture(start, photos)
    assert fitted.scale.tolist() == pytest.approx([4 / 0.6] * 2, rel=0.1)
    assert fitted(photos).mean(0).tolist() == pytest.approx([0.2, 0.4], abs=0.02)


@pytest.mark.parametrize("moved", [0.0, 5.0])
def test_the_mixture_stays_usable_where_no_photo_shows_a_label(moved: float) -> None:
    """Its share is below the smallest one that is told apart; `moved` puts the photos among generated positives."""
    photos = torch.randn(5_000, 1, generator=torch.Generator().manual_seed(6)).double() - 5 + moved
    start = Affine(torch.tensor([2.0]).double(), torch.tensor([0.0]).double())
    fitted = fitting.fit_mixture(start, photos)
    assert 0 < float(fitted.scale) < 10
    fitting.make_thresholds(("a",), fitted, photos, None, 0.3)
    if not moved:
        assert float(fitted(photos).mean()) < 0.01


def test_labels_whose_photos_all_score_alike_keep_the_calibration_of_generated_images() -> None:
    """A sure classifier has scores at the limit for a label that no photo shows; val may hold a single photo."""
    photos = torch.tensor([-13.8, 13.8, 0.0]).double() + torch.tensor([0.0, 0.0, 1.0]) * torch.randn(300, 1).double()
    start = Affine(torch.full((3,), 4.0).double(), torch.full((3,), -1.0).double())
    fitted = fitting.fit_mixture(start, photos)
    assert (fitted.scale[:2].tolist(), fitted.bias[:2].tolist()) == ([4.0] * 2, [-1.0] * 2)
    assert fitted.scale[2] != 4.0
    one = fitting.fit_mixture(start, photos[:1])
    assert torch.equal(one.scale, start.scale)
    fitting.make_thresholds(NAMES, one, photos[:1], None, 0.3)


def test_a_label_that_every_photo_surely_shows_has_thresholds() -> None:
    photos = torch.full((9, 2), 13.8).double() + torch.rand(9, 2, generator=torch.Generator().manual_seed(0))
    seen = Affine(torch.full((1,), 4.0).double(), torch.zeros(1).double())
    for pooling in (0.0, 1.0):
        fitting.make_thresholds(NAMES[:2], fitting.transfer(seen, photos, pooling), photos, None, 0.3)
    fitting.make_thresholds(NAMES[:2], fitting.fit_mixture(seen, photos), photos, None, 0.3)


def test_the_bias_makes_the_mean_probability_the_share() -> None:
    scores, share = simulated(300)[0] * 5, torch.tensor([0.001, 0.5, 0.93]).double()
    bias = fitting.bias_for_share(scores, share)
    torch.testing.assert_close((scores + bias).sigmoid().mean(0), share)


def test_transfer_between_each_labels_own_share_and_the_common_one() -> None:
    seen = Affine(torch.tensor([2.0, 8.0]).double(), torch.tensor([-1.0, -2.0]).double())
    photos = simulated(400)[0] + torch.tensor([-1.0, 0.0, 1.0])
    own = (4 * photos - 1.5).sigmoid().mean(0)
    expected = {0.0: own, 1.0: own.mean().expand(3)}
    for pooling, share in expected.items():
        fitted = fitting.transfer(seen, photos, pooling)
        assert fitted.scale.tolist() == pytest.approx([4.0] * 3)
        torch.testing.assert_close(fitted(photos).mean(0), share)
    torch.testing.assert_close(fitting.transfer(seen, photos, 0.0).bias, torch.full((3,), -1.5).double())


@pytest.mark.parametrize("annotated", [True, False])
def test_the_threshold_is_the_best_of_all(annotated: bool) -> None:
    logits, targets = simulated(300, seed=5)
    probabilities = Affine(SCALE, BIAS)(logits)[:, 0].mul(20).round().div(20)  # with ties
    shown = targets[:, 0].double() if annotated else probabilities
    expected_f1 = {}
    for threshold in probabilities.unique().tolist():
        present = probabilities >= threshold
        expected_f1[threshold] = float(2 * shown[present].sum() / (present.sum() + shown.sum()))
    chosen = fitting.best_threshold(probabilities, shown)
    assert expected_f1[chosen] == max(expected_f1.values())
    if annotated:
        assert expected_f1[chosen] == pytest.approx(f1_score(targets[:, 0], probabilities >= chosen))


def test_rules_carry_the_calibration_and_the_threshold() -> None:
    logits, targets = simulated(500)
    targets[:50, 0] = -1
    thresholds = fitting.make_thresholds(NAMES, Affine(SCALE, BIAS), logits, targets, max_risk=0.3)
    rule = thresholds.rules["a"]
    assert (rule.scale, rule.bias) == (3.0, -1.0)
    probabilities = Affine(SCALE, BIAS)(logits)[50:, 0]
    assert rule.threshold == fitting.best_threshold(probabilities, targets[50:, 0])
    torch.testing.assert_close(thresholds.apply(logits.sigmoid()).probabilities, Affine(SCALE, BIAS)(logits))


def test_a_label_without_examples_is_named() -> None:
    logits, targets = simulated(50)
    targets[:, 1] = 0
    with pytest.raises(ValueError, match=r"one kind is missing for \['b'\].*held_out_share"):
        fitting.fit_platt(logits, targets, NAMES)
    targets[:, 2] = 1
    targets[0, 1] = 1
    with pytest.raises(ValueError, match=r"one kind is missing for \['c'\]"):
        fitting.fit_platt(logits, targets, NAMES)
