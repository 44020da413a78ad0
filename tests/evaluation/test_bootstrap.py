"""The bootstrap against scikit-learn, literally repeated rows and known distributions."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import average_precision_score

from tailorset.evaluation import bootstrap
from tailorset.evaluation.bootstrap import Estimate, Resamples
from tailorset.evaluation.metrics import average_precisions, multilabel_metrics

NUM_SEEDS, NUM_IMAGES, NUM_LABELS = 3, 60, 5


def random_case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(NUM_IMAGES, NUM_LABELS, generator=generator) < 0.3).to(torch.int8)
    noise = torch.randn(NUM_SEEDS, NUM_IMAGES, NUM_LABELS, generator=generator)
    scores = (targets + noise).mul(4).round().div(3)  # with ties, outside [0, 1]
    targets[torch.rand(targets.shape, generator=generator) < 0.1] = -1
    return scores, targets


@pytest.fixture
def resamples() -> Resamples:
    return bootstrap.draw_resamples(NUM_SEEDS, NUM_IMAGES, 40, seed=7)


def test_a_resample_holds_as_many_images_as_the_test_set(resamples: Resamples) -> None:
    assert resamples.counts.sum(1).tolist() == [NUM_IMAGES] * 40
    assert resamples.seeds.shape == (40, NUM_SEEDS - 1)
    assert set(resamples.seeds.flatten().tolist()) == set(range(NUM_SEEDS))
    again = bootstrap.draw_resamples(NUM_SEEDS, NUM_IMAGES, 40, seed=7)
    assert torch.equal(again.counts, resamples.counts)
    other = bootstrap.draw_resamples(NUM_SEEDS, NUM_IMAGES, 40, seed=8)
    assert not torch.equal(other.counts, resamples.counts)


def test_average_precision_equals_scikit_learn_with_weights_and_with_repeated_rows(resamples: Resamples) -> None:
    scores, targets = random_case()
    values = bootstrap.average_precision_replicates(scores[:1], targets, resamples)
    for replicate in range(0, 40, 5):
        for label in range(NUM_LABELS):
            known = targets[:, label] >= 0
            truth, ranks = targets[known, label], scores[0, known, label]
            counts = resamples.counts[replicate, known]
            weighted = average_precision_score(truth, ranks, sample_weight=counts)
            rows = torch.arange(len(truth)).repeat_interleave(counts)
            repeated = average_precision_score(truth[rows], ranks[rows])
            assert values[replicate, label].item() == pytest.approx(weighted, abs=1e-12)
            assert values[replicate, label].item() == pytest.approx(repeated, abs=1e-12)


def test_chunks_change_nothing(resamples: Resamples, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap.mean_average_precision(*random_case(), resamples)
    monkeypatch.setattr(bootstrap, "ELEMENTS_AT_ONCE", 7 * NUM_IMAGES)
    assert torch.equal(bootstrap.mean_average_precision(*random_case(), resamples), whole)


def test_everything_once_gives_the_metrics_of_the_seeds() -> None:
    scores, targets = random_case()
    everything = bootstrap.whole_set(NUM_SEEDS, NUM_IMAGES)
    expected = [multilabel_metrics(matrix, targets) for matrix in scores]
    value = bootstrap.mean_average_precision(scores, targets, everything).item()
    assert value == pytest.approx(sum(metrics["map"] for metrics in expected) / NUM_SEEDS, abs=1e-6)
    f1 = bootstrap.f1_at_k(scores, targets, everything).item()
    assert f1 == pytest.approx(sum(metrics["f1_at_3"] for metrics in expected) / NUM_SEEDS, abs=1e-6)


def test_replicates_equal_the_metrics_of_the_resampled_seeds_and_images(resamples: Resamples) -> None:
    scores, targets = random_case()
    values = bootstrap.mean_average_precision(scores, targets, resamples)
    f1 = bootstrap.f1_at_k(scores, targets, resamples, k=2)
    for replicate in range(0, 40, 8):
        rows = torch.arange(NUM_IMAGES).repeat_interleave(resamples.counts[replicate])
        seeds = resamples.seeds[replicate].tolist()
        expected = [multilabel_metrics(scores[seed, rows], targets[rows], [2]) for seed in seeds]
        assert values[replicate].item() == pytest.approx(sum(m["map"] for m in expected) / len(seeds), abs=1e-6)
        assert f1[replicate].item() == pytest.approx(sum(m["f1_at_2"] for m in expected) / len(seeds), abs=1e-6)


def test_one_score_matrix_stands_for_every_seed(resamples: Resamples) -> None:
    scores, targets = random_case()
    once = bootstrap.mean_average_precision(scores[:1], targets, resamples)
    repeated = bootstrap.mean_average_precision(scores[:1].expand(NUM_SEEDS, -1, -1), targets, resamples)
    torch.testing.assert_close(once, repeated)


def test_labels_without_a_positive_are_left_out(resamples: Resamples) -> None:
    scores, targets = random_case()
    targets[:, 2] = 0
    values = bootstrap.average_precision_replicates(scores, targets, resamples)
    assert values[:, 2].isnan().all()
    others = [0, 1, 3, 4]
    expected = bootstrap.mean_average_precision(scores[..., others], targets[:, others], resamples)
    torch.testing.assert_close(bootstrap.mean_average_precision(scores, targets, resamples), expected)
    with pytest.raises(ValueError, match="40 of 40 resamples hold no positive"):
        bootstrap.percentile_interval(0.0, values[:, 2])


def gaussian_case(num_images: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    targets = (torch.rand(num_images, 1, generator=generator) < 0.3).long()
    return 1.5 * targets + torch.randn(num_images, 1, generator=generator), targets


def test_the_interval_covers_the_truth_of_a_known_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = float(average_precisions(*gaussian_case(400_000, generator)))
    covered = 0
    for trial in range(300):
        scores, targets = gaussian_case(200, generator)
        resamples = bootstrap.draw_resamples(1, 200, 400, seed=trial)
        interval = bootstrap.estimate(bootstrap.mean_average_precision, scores[None], targets, resamples).interval()
        covered += interval.low <= truth <= interval.high
    assert covered / 300 == pytest.approx(0.95, abs=0.03)


def test_the_spread_over_seeds_is_that_of_the_mean_of_the_seeds() -> None:
    values = torch.randn(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    resamples = bootstrap.draw_resamples(6, 1, 40_000, seed=0)
    means = values[resamples.seeds].mean(1)
    assert means.std().item() == pytest.approx(values.std().item() / math.sqrt(6), rel=0.02)


def test_a_difference_is_paired() -> None:
    scores, targets = random_case()
    resamples = bootstrap.draw_resamples(NUM_SEEDS, NUM_IMAGES, 400, seed=0)
    ours = bootstrap.estimate(bootstrap.mean_average_precision, scores, targets, resamples)
    nudged = scores + 0.2 * torch.randn(scores.shape, generator=torch.Generator().manual_seed(2))
    other = bootstrap.estimate(bootstrap.mean_average_precision, nudged, targets, resamples)
    itself = bootstrap.paired_difference(ours, ours)
    assert (itself.value, itself.low, itself.high) == (0.0, 0.0, 0.0)
    paired = bootstrap.paired_difference(ours, other)
    unpaired = bootstrap.paired_difference(ours, Estimate(other.value, other.replicates.roll(1)))
    assert paired.high - paired.low < 0.7 * (unpaired.high - unpaired.low)


def test_the_interval_is_the_central_share_of_the_replicates() -> None:
    interval = bootstrap.percentile_interval(50.0, torch.arange(101.0), level=0.9)
    assert (interval.low, interval.high) == pytest.approx((5.0, 95.0))
    assert str(bootstrap.Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


def test_gap_closed_by_hand() -> None:
    raw = Estimate(0.4, torch.tensor([0.4, 0.3, 0.5]))
    supervised = Estimate(0.8, torch.tensor([0.8, 0.7, 0.9]))
    closed = bootstrap.gap_closed(Estimate(0.6, torch.tensor([0.6, 0.4, 0.8])), raw, supervised, level=0.999)
    assert (closed.value, closed.low, closed.high) == pytest.approx((0.5, 0.25, 0.75), abs=1e-3)


def test_no_share_of_a_gap_that_may_be_zero() -> None:
    raw = Estimate(0.4, torch.tensor([0.4, 0.5]))
    with pytest.raises(ValueError, match="not above 0"):
        bootstrap.gap_closed(raw, raw, Estimate(0.45, torch.tensor([0.5, 0.4])))


def test_what_does_not_fit_is_an_error(resamples: Resamples) -> None:
    scores, targets = random_case()
    with pytest.raises(ValueError, match="num_resamples 0"):
        bootstrap.draw_resamples(5, 10, 0, seed=0)
    with pytest.raises(ValueError, match="do not fit resamples of 3 seeds"):
        bootstrap.mean_average_precision(scores[:2], targets, resamples)
    with pytest.raises(ValueError, match="must be \\(seeds, images, labels\\)"):
        bootstrap.mean_average_precision(scores[0], targets, resamples)
    scores[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="1 scores are not finite"):
        bootstrap.mean_average_precision(scores, targets, resamples)
    with pytest.raises(ValueError, match="level 95"):
        bootstrap.percentile_interval(0.0, torch.zeros(3), level=95)
    with pytest.raises(ValueError, match="3 and 4 replicates"):
        bootstrap.paired_difference(Estimate(0.0, torch.zeros(3)), Estimate(0.0, torch.zeros(4)))
