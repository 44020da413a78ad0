"""Solvers made from the settings of a pipeline that was saved with another solver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler

from tailorset.generators.parts.schedulers import SCHEDULERS, scheduler_for

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def solved(name: str, config: Mapping[str, Any]) -> torch.Tensor:
    """Return latents after all steps, with a smooth function in the place of the UNet."""
    scheduler = scheduler_for(name, config, 6, torch.device("cpu"))
    noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    latents = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        prediction = 0.9 * torch.tanh(scheduler.scale_model_input(latents, timestep))
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
    return latents


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("algorithm", ["sde-dpmsolver++", "dpmsolver"])
def test_no_solver_of_a_pipeline_draws_noise_of_its_own(name: str, algorithm: str) -> None:
    saved = {**DPMSolverMultistepScheduler(**BETAS, solver_order=3).config, "algorithm_type": algorithm}
    assert torch.equal(solved(name, saved), solved(name, saved))
    assert torch.equal(solved(name, saved), solved(name, DPMSolverMultistepScheduler(**BETAS).config))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_latents_are_not_clipped_to_the_range_of_pixels(name: str) -> None:
    saved = EulerDiscreteScheduler(**BETAS).config  # says nothing of clipping, which is DDIM's default
    assert "clip_sample" not in saved
    assert solved(name, saved).abs().max() > 5
