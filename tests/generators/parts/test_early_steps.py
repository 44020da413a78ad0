"""Sampling steps that are denser where there is most noise."""

from __future__ import annotations

import itertools

import pytest

from tailorset.generators.parts.early_steps import early_timesteps
from tailorset.generators.parts.schedulers import OWN_SPACINGS, build_scheduler


def test_half_of_the_steps_are_in_the_noisiest_quarter() -> None:
    scheduler = build_scheduler("dpm++_2m_early", {"beta_schedule": "squaredcos_cap_v2"})
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == [999, 989, 959, 909, 839, 749, 639, 509, 360, 190]
    assert scheduler.sigmas[-1] == 0
    assert sum(step >= 749 for step in scheduler.timesteps) == 6


@pytest.mark.parametrize("spacing", OWN_SPACINGS)
def test_it_replaces_the_spacing_of_the_pipeline(spacing: str) -> None:
    scheduler = build_scheduler("dpm++_2m_early", {f"use_{spacing}": True})
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 937, 749, 437]


@pytest.mark.parametrize("num_steps", [1, 2, 50, 999, 1000])
def test_no_timestep_comes_twice(num_steps: int) -> None:
    timesteps = early_timesteps(num_steps, 1000)
    assert len(timesteps) == num_steps
    assert timesteps[0] == 999
    assert all(later < earlier for earlier, later in itertools.pairwise(timesteps))
    assert timesteps[-1] >= 0


def test_more_steps_than_in_training_are_refused() -> None:
    with pytest.raises(ValueError, match="1001 sampling steps: choose at most 1000"):
        early_timesteps(1001, 1000)
