"""The loss on which a UNet is trained: what it must predict for latents with noise of some strength.

Shapes: B images of a batch, C x h x w latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

PREDICTIONS = ("epsilon", "v_prediction", "sample")


def training_scheduler(scheduler_config: Mapping[str, Any]) -> Any:
    """Return the scheduler by which a UNet was trained; it keeps no state.

    Raises: ValueError if the config names another kind of prediction than diffusers trains UNets for.
    """
    from diffusers import DDPMScheduler

    scheduler: Any = DDPMScheduler.from_config(dict(scheduler_config))
    if (kind := scheduler.config.prediction_type) not in PREDICTIONS:
        raise ValueError(
            f"the generator's scheduler has prediction_type {kind!r}, and the UNet can be tuned for"
            f" {', '.join(PREDICTIONS)}: set tune_unet.num_updates to 0"
        )
    return scheduler


def training_pair(
    scheduler: Any, latents: Tensor, noise: Tensor, seeds: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return latents with noise (B, C, h, w), their timesteps (B,), and the prediction that is right for them.

    scheduler: see `training_scheduler`. latents, noise: (B, C, h, w). A timestep depends on its image's own seed only.
    Source: Ho et al. 2020; Salimans, Ho 2022 for models that predict v.
    """
    own = [torch.Generator().manual_seed(seed ^ 1) for seed in seeds]  # the noise is drawn with the seed itself
    steps = [torch.randint(scheduler.config.num_train_timesteps, (), generator=generator) for generator in own]
    timesteps = torch.stack(steps).to(latents.device)
    velocity = scheduler.get_velocity(latents, noise, timesteps)
    targets = dict(zip(PREDICTIONS, (noise, velocity, latents), strict=True))
    return scheduler.add_noise(latents, noise, timesteps), timesteps, targets[scheduler.config.prediction_type]
