"""Solvers of diffusers by short names, and the final latents that a prediction in mid-course implies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

OWN_SPACINGS = ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "flow_sigmas", "lu_lambdas")
# A pipeline's config may be that of a solver that draws noise in every step, without the image's seed.
_DPM_2M = {"algorithm_type": "dpmsolver++", "solver_order": 2}
_DDIM = {"clip_sample": False}  # for pixels: diffusers clips by default, to a range that latents exceed
# Class of diffusers or of `early_steps`, and settings that differ from the pipeline's.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm++_2m": ("DPMSolverMultistepScheduler", _DPM_2M),
    "dpm++_2m_early": ("EarlyStepsScheduler", _DPM_2M | {f"use_{name}": False for name in OWN_SPACINGS}),
    "euler": ("EulerDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", _DDIM),
    "ddim_trailing": ("DDIMScheduler", _DDIM | {"timestep_spacing": "trailing"}),
}


def build_scheduler(name: str, scheduler_config: Mapping[str, Any]) -> Any:
    """Return a new scheduler of diffusers with the pipeline's settings; it keeps state while sampling."""
    import diffusers

    from tailorset.generators.parts import early_steps

    kind, changes = SCHEDULERS[name]
    module = diffusers if hasattr(diffusers, kind) else early_steps
    return getattr(module, kind).from_config(dict(scheduler_config) | changes)


def scheduler_for(
    name: str, scheduler_config: Mapping[str, Any], num_inference_steps: int, device: torch.device
) -> Any:
    """Return a new scheduler that is ready for its first step."""
    scheduler = build_scheduler(name, scheduler_config)
    scheduler.set_timesteps(num_inference_steps, device=device)
    return scheduler


def steps_skipped(num_inference_steps: int, strength: float) -> int:
    """Number of the first steps that are left out when drawing starts from a photo, as diffusers counts them.

    Raises:
        ValueError: no step would be left.
    """
    taken = min(int(num_inference_steps * strength), num_inference_steps)
    if taken < 1:
        raise ValueError(
            f"strength {strength:g} of {num_inference_steps} sampling steps is none, which would copy the photo: raise"
            f" it to {math.ceil(100 / num_inference_steps) / 100:g} or more, or take more steps"
        )
    return num_inference_steps - taken


def noised(scheduler: Any, latents: Tensor, noise: Tensor, step: int) -> Tensor:
    """Return latents (B, C, h, w) with the noise that they have before a sampling step, the first one to be taken."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(step)
    return scheduler.add_noise(latents, noise, scheduler.timesteps[step : step + 1].expand(len(latents)))


def clean_latents(scheduler: Any, prediction: Tensor, step: int, scaled: Tensor) -> Tensor:
    """Return the latents without noise that the UNet's prediction in a sampling step implies, (B, C, h, w).

    scaled: the input of the UNet, of variance one whatever the scheduler's own scale.
    """
    if hasattr(scheduler, "sigmas"):
        kept = float(1 / (1 + scheduler.sigmas[step] ** 2))
    else:
        kept = float(scheduler.alphas_cumprod[scheduler.timesteps[step]])
    signal, noise = kept**0.5, (1 - kept) ** 0.5
    if scheduler.config.prediction_type == "epsilon":
        return (scaled - noise * prediction) / signal
    return signal * scaled - noise * prediction if scheduler.config.prediction_type == "v_prediction" else prediction
