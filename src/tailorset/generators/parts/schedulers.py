"""Solvers of diffusers by short names, and what a prediction in mid-course says of the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {  # class, and what it takes other than the pipeline's settings
    "dpm++_2m": ("DPMSolverMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "ddim_trailing": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
}


def build_scheduler(name: str, scheduler_config: Mapping[str, Any]) -> Any:
    """A scheduler of diffusers with the settings of the pipeline's own; fresh, as it keeps state while sampling."""
    import diffusers

    kind, others = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(dict(scheduler_config) | others)


def clean_latents(scheduler: Any, prediction: Tensor, step: int, scaled: Tensor) -> Tensor:
    """The latents without noise that the UNet's prediction in a sampling step foresees, (B, C, h, w).

    scaled: what the UNet was given, of variance one whatever the scheduler's own scale.
    """
    if hasattr(scheduler, "sigmas"):
        kept = float(1 / (1 + scheduler.sigmas[step] ** 2))
    else:
        kept = float(scheduler.alphas_cumprod[scheduler.timesteps[step]])
    signal, noise = kept**0.5, (1 - kept) ** 0.5
    if scheduler.config.prediction_type == "epsilon":
        return (scaled - noise * prediction) / signal
    return signal * scaled - noise * prediction if scheduler.config.prediction_type == "v_prediction" else prediction
