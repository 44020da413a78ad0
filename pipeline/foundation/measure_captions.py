"""Measure at which noise the generator uses its caption, and how much a step of training at that noise counts."""

from __future__ import annotations

import torch
from diffusers import StableDiffusionPipeline
from foundation_settings import Foundation
from torch import Tensor
from tqdm import tqdm
from train_unet import loss_weight
from train_vae import IMAGE_PX
from web_images import token_ids

from tailorset.records import LabelSpace
from tailorset.seeding import numpy_rng
from tailorset.toybox.captions import caption
from tailorset.toybox.scenes import render, web_scene

NUM_SCENES, BATCH = 192, 64
TIMESTEPS = range(50, 1000, 100)


@torch.no_grad()
def measure_captions(settings: Foundation, space: LabelSpace, num_scenes: int = NUM_SCENES) -> dict[str, float]:
    """Return per timestep `caption/gain/T`, the v-prediction error with another scene's caption less that with its own.

    `caption/weighted_share` is the share of the gain that is left after the training's weights: near 0, the training
    hardly sees whether a caption was followed.
    """
    pipeline = StableDiffusionPipeline.from_pretrained(settings.published / "diffusion", torch_dtype=torch.float32)
    latents, states = encoded_scenes(pipeline, space, num_scenes)
    gains, weighted = {}, 0.0
    for timestep in tqdm(TIMESTEPS, desc="use of captions"):
        own, other = (prediction_error(pipeline, latents, texts, timestep) for texts in (states, states.roll(1, 0)))
        gains[f"caption/gain/{timestep}"] = other - own
        alpha = pipeline.scheduler.alphas_cumprod[timestep]
        weighted += (other - own) * loss_weight(alpha, settings.train_unet.snr_gamma).item()
    return gains | {"caption/weighted_share": weighted / sum(gains.values())}


def encoded_scenes(pipeline: StableDiffusionPipeline, space: LabelSpace, count: int) -> tuple[Tensor, Tensor]:
    """Return latents (N, 8, h, w) of fresh web scenes and the text states (N, T, D) of their captions."""
    streams = [numpy_rng("report captions", i) for i in range(count)]
    drawn = [web_scene(rng, space.names) for rng in streams]
    texts = [caption(scene, rng) for scene, rng in zip(drawn, streams, strict=True)]
    images = torch.stack([torch.from_numpy(render(scene, IMAGE_PX)).permute(2, 0, 1).float() / 255 for scene in drawn])
    encode, factor = pipeline.vae.encode, pipeline.vae.config.scaling_factor
    latents = torch.cat([encode(2 * batch - 1).latent_dist.mean * factor for batch in images.split(BATCH)])
    tokens = token_ids(pipeline.tokenizer, texts)
    return latents, torch.cat([pipeline.text_encoder(batch).last_hidden_state for batch in tokens.split(BATCH)])


def prediction_error(pipeline: StableDiffusionPipeline, latents: Tensor, states: Tensor, timestep: int) -> float:
    """Return the mean squared error of the v-prediction; the noise depends on the timestep only."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(timestep))
    times = torch.full((len(latents),), timestep)
    noisy = pipeline.scheduler.add_noise(latents, noise, times)
    target = pipeline.scheduler.get_velocity(latents, noise, times)
    batches = zip(noisy.split(BATCH), times.split(BATCH), states.split(BATCH), strict=True)
    return (torch.cat([pipeline.unet(*batch).sample for batch in batches]) - target).square().mean().item()
