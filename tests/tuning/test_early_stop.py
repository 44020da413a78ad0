"""Early stopping and the reward-hacking gauge, by hand."""

from __future__ import annotations

import pytest

from tailorset.tuning.early_stop import Evaluation, best_evaluation, is_over, reward_hacking

FALL_AND_RISE = [
    Evaluation(0, 3.0, 0.40, 0.50),
    Evaluation(10, 2.8, 0.65, 0.52),
    Evaluation(20, 2.5, 0.60, 0.55),
    Evaluation(30, 2.5, 0.60, 0.40),
    Evaluation(40, 2.6, 0.55, 0.45),
]


def test_the_best_has_the_lowest_loss_and_is_the_earliest_of_equals() -> None:
    assert best_evaluation(FALL_AND_RISE) == FALL_AND_RISE[2]
    assert best_evaluation(FALL_AND_RISE[:1]).update == 0


@pytest.mark.parametrize(("patience", "num_evaluations"), [(1, 4), (2, 5)])
def test_tuning_is_over_when_patience_is_used_up_and_not_before(patience: int, num_evaluations: int) -> None:
    ends = [is_over(FALL_AND_RISE[:count], patience) for count in range(len(FALL_AND_RISE) + 1)]
    assert ends.index(True) == num_evaluations


def test_the_gauge_is_the_gain_only_the_discriminator_sees() -> None:
    assert reward_hacking(FALL_AND_RISE[0], FALL_AND_RISE[2]) == pytest.approx(0.20 - 0.05)
    assert reward_hacking(FALL_AND_RISE[0], FALL_AND_RISE[3]) == pytest.approx(0.20 + 0.10)  # the judge is worse off
    assert reward_hacking(FALL_AND_RISE[0], FALL_AND_RISE[0]) == 0


def test_an_adapter_that_loses_images_is_never_kept():
    lower_loss = [Evaluation(0, 3.0, 0.44, 0.43), Evaluation(40, 2.9, 0.45, 0.40), Evaluation(80, 2.6, 0.36, 0.50)]
    assert best_evaluation(lower_loss).update == 40
    assert best_evaluation([lower_loss[0], lower_loss[2]]).update == 0
    assert is_over([lower_loss[0], lower_loss[2]], patience=1)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_loss_that_is_not_a_number_is_never_the_lowest(lost: int) -> None:
    evaluations = [Evaluation(10 * number, 3.0 - number, 0.5, 0.5) for number in range(3)]
    evaluations[lost] = evaluations[lost]._replace(loss=float("nan"))
    assert best_evaluation(evaluations).update == (10 if lost == 2 else 20)
