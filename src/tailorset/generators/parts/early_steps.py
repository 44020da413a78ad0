"""A solver with more steps early, where there is most noise and the prompt decides what is drawn where."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler


class EarlyStepsScheduler(DPMSolverMultistepScheduler):
    """DPM-Solver++ 2M, of whose n steps step i starts at (1 - (i/n)^2) of the training timesteps.

    Half of the steps lie in the noisiest quarter of the timesteps; spaced evenly, a quarter would.
    """

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:  # type: ignore[override]
        """Space the steps; timesteps are integers, none twice."""
        super().set_timesteps(device=device, timesteps=early_timesteps(num_inference_steps, len(self.betas)))


def early_timesteps(num_inference_steps: int, num_train_timesteps: int) -> list[int]:
    """Return falling timesteps below num_train_timesteps, the first one the largest.

    Raises:
        ValueError: more steps than timesteps.
    """
    if num_inference_steps > num_train_timesteps:
        raise ValueError(f"{num_inference_steps} sampling steps: choose at most {num_train_timesteps}, as in training")
    share = np.arange(num_inference_steps) / num_inference_steps
    spaced = np.round((num_train_timesteps - 1) * (1 - share**2)).astype(int)
    highest = num_train_timesteps - 1 - np.arange(num_inference_steps)  # early timesteps would repeat with many steps
    return np.minimum(spaced, highest).tolist()
