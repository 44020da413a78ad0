"""The loss on which a UNet is trained: what it must predict for latents with noise of some strength.

Shapes: B images of a batch, C x h x w latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def training_pair(
    scheduler_config: Mapping[str, Any], latents: Tensor, noise: Tensor, seeds: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return latents with noise (B, C, h, w), their timesteps (B,), and the prediction that is right for them.

    latents, noise: (B, C, h, w). A timestep depends on its image's own seed only.
    Source: Ho et al. 2020; Salimans, Ho 2022 for models that predict v.
    """
    from diffusers import DDPMScheduler

    scheduler: Any = DDPMScheduler.from_config(dict(scheduler_config))
    own = [torch.Generator().manual_seed(seed ^ 1) for seed in seeds]  # the noise is drawn with the seed itself
    steps = [torch.randint(scheduler.config.num_train_timesteps, (), generator=generator) for generator in own]
    timesteps = torch.stack(steps).to(latents.device)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    targets = {"epsilon": lambda: noise, "sample": lambda: latents}
    kind = scheduler.config.prediction_type
    target = targets[kind]() if kind in targets else scheduler.get_velocity(latents, noise, timesteps)
    return noisy, timesteps, target
