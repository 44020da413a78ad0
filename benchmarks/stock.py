"""diffusers' own pipeline on the models of params.yaml, and the prompts of both sides of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tailorset.generators.parts.schedulers import build_scheduler
from tailorset.generators.stable_diffusion import StableDiffusion
from tailorset.records import LabelSpace, Prompt, prompt_id


def bench_prompts(label_space: LabelSpace, num_prompts: int) -> list[Prompt]:
    """The unseen pairs in turn, in plain wording."""
    pairs = label_space.pairs()
    prompts = []
    for i in range(num_prompts):
        labels = pairs[i % len(pairs)]
        words = " next to ".join(f"a {label_space.prompt_names(label)[0]}" for label in labels)
        prompts.append(
            Prompt(
                prompt_id=prompt_id(labels, i), text=f"a photo of {words}", labels=labels, origin="template", attempt=1
            )
        )
    return prompts


def stock_pipeline(config: Any, device: torch.device) -> Any:
    """diffusers' own pipeline with the scheduler of params.yaml, in the generator's dtype."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        config.model,
        revision=config.revision,
        dtype=getattr(torch, config.dtype),
        safety_checker=None,
        requires_safety_checker=False,
    )
    pipeline.scheduler = build_scheduler(config.scheduler, pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def stock_noise(generator: StableDiffusion, seeds: Sequence[int]) -> Tensor:
    """(B, C, h, w) the noise that our generator draws from the seeds."""
    factor = 2 ** (len(generator.vae.config.block_out_channels) - 1)
    side = generator.image_px // factor
    shape = (generator.unet.config.in_channels, side, side)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(noise).to(generator.device, generator.unet.dtype)
