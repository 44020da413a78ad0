"""Solvers of diffusers by short names, and the final latents that a prediction in mid-course implies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {  # class, and settings that differ from the pipeline's
    "dpm++_2m": ("DPMSolverMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "ddim_trailing": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
}


def build_scheduler(name: str, scheduler_config: Mapping[str, Any]) -> Any:
    """Return a new scheduler of diffusers with the pipeline's settings; it keeps state while sampling."""
    import diffusers

    kind, changes = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(dict(scheduler_config) | changes)


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
