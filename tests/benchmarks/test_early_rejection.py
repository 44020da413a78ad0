"""Savings of giving up early, on made-up probabilities."""

from __future__ import annotations

import pytest
import torch
from early_rejection import ImageCost, saving

COST = ImageCost(num_steps=10, step=1.0, look=0.5)
FINAL = torch.tensor([0.9, 0.1] * 50)  # every other candidate is good


def test_a_preview_that_knows_the_end_saves_the_steps_of_the_bad_half() -> None:
    found = saving(FINAL, FINAL, threshold=0.5, lost=0.0, steps=4, cost=COST)
    assert (found.lost, found.caught) == (0.0, 1.0)
    whole = (10 + 0.5) / 0.5
    assert found.time == pytest.approx((4 + 0.5 + 0.5 * (6 + 0.5)) / 0.5 / whole)


def test_a_preview_that_knows_nothing_costs_its_look() -> None:
    found = saving(torch.full_like(FINAL, 0.5), FINAL, threshold=0.5, lost=0.02, steps=4, cost=COST)
    assert (found.lost, found.caught) == (0.0, 0.0)
    assert found.time == pytest.approx((10 + 2 * 0.5) / (10 + 0.5))


def test_the_cutoff_is_chosen_on_the_first_half_and_judged_on_the_second() -> None:
    preview = FINAL.clone()
    preview[50::2] = 0.05  # good ones that the preview takes for bad, in the second half only
    found = saving(preview, FINAL, threshold=0.5, lost=0.0, steps=4, cost=COST)
    assert found.cutoff == pytest.approx(0.9)
    assert found.lost == 1.0
    assert found.time == float("inf")
