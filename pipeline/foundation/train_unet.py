"""Train the diffusion model of the toybox world and write the StableDiffusionPipeline folder.

v-prediction on a cosine schedule (its terminal SNR is practically zero), truncated SNR + 1 weighting (Salimans and Ho
2022; at low noise clamped as in Hang et al. 2023), EMA.
Latents are encoded once. The text encoder learns too: with a frozen one the UNet draws the first object of a caption
and hardly ever the second (docs/foundation.md).
"""

from __future__ import annotations

import sys
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from foundation_settings import Foundation, load_settings
from text_tower import text_encoder_from_open_clip
from torch import Tensor
from tqdm import tqdm
from train_vae import IMAGE_PX, LATENT_CHANNELS
from training_loop import compiled, device, half_precision, train, work_file
from transformers import CLIPTextModel, CLIPTokenizer
from web_images import Web, batch_indices, caption_choice, num_named, token_ids

ENCODE_BATCH = 64


def build_unet(cross_attention_dim: int, widths: tuple[int, ...]) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=IMAGE_PX // 4,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * (len(widths) - 1)),  # the outermost: none
        up_block_types=(*("CrossAttnUpBlock2D",) * (len(widths) - 1), "UpBlock2D"),
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def first_unet(settings: Foundation, cross_attention_dim: int) -> UNet2DConditionModel:
    """The UNet at the start of training: random, or `continue_from`'s."""
    if settings.continue_from is None:
        return build_unet(cross_attention_dim, settings.train_unet.widths)
    folder = settings.continue_from / "diffusion" / "unet"
    return UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32)


def text_encoder(settings: Foundation, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text encoder at the start of training: the text tower's, or the one of `continue_from`'s UNet."""
    if settings.continue_from is None:
        return text_encoder_from_open_clip(settings.output / "text_tower", tokenizer)
    folder = settings.continue_from / "diffusion" / "text_encoder"
    return CLIPTextModel.from_pretrained(folder, torch_dtype=torch.float32).eval()


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


@torch.no_grad()
def encode_latents(vae: AutoencoderKL, web: Web) -> np.ndarray:
    """Return scaled latent means (N, 8, P / 4, P / 4) fp16, cached on disk; what an interrupted run encoded is kept."""
    path, partial = work_file("latents.npy"), work_file("latents_partial.npy")
    if not path.exists():
        shape = (len(web), LATENT_CHANNELS, IMAGE_PX // 4, IMAGE_PX // 4)
        options = {"mode": "r+"} if partial.exists() else {"mode": "w+", "dtype": np.float16, "shape": shape}
        latents = np.lib.format.open_memmap(partial, **options)
        vae = vae.to(memory_format=torch.channels_last)
        for start in tqdm(range(0, len(web), ENCODE_BATCH), desc="latents"):
            indices = np.arange(start, min(start + ENCODE_BATCH, len(web)))
            if latents[indices[-1]].any():  # a new file is all zeros
                continue
            images = (2 * web.pixels(indices, IMAGE_PX) - 1).contiguous(memory_format=torch.channels_last)
            with half_precision():
                mean = vae.encode(images).latent_dist.mean * vae.config.scaling_factor
            latents[indices] = mean.half().cpu().numpy()
        latents.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="c")  # torch wants arrays that can be written to


def diffusion_loss(unet: Any, scheduler: DDIMScheduler, latents: Tensor, states: Tensor, snr_gamma: float) -> Tensor:
    """Return the weighted v-prediction error; latents (B, 8, h, w), states (B, T, D)."""
    timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
    noise = torch.randn_like(latents)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    target = scheduler.get_velocity(latents, noise, timesteps)
    error = (unet(noisy, timesteps, states).sample.float() - target).square().mean(dim=(1, 2, 3))
    alpha = scheduler.alphas_cumprod.to(latents.device)[timesteps]
    return (error * loss_weight(alpha, snr_gamma)).mean()


def loss_weight(alpha: Tensor, gamma: float) -> Tensor:
    """Return the weight of the v-prediction error: 1, but less where there is little noise; alpha: cumulated, (B,).

    For the error of the image that is SNR + 1, clamped to `gamma`. Min-SNR's own weight, min(SNR, gamma) / (SNR + 1),
    all but ignores the noisiest steps: those where the caption decides what is drawn (`make foundation-report`).
    """
    snr = alpha / (1 - alpha)
    return (snr + 1).clamp(max=gamma) / (snr + 1)


def save_pipeline(settings: Foundation, unet: UNet2DConditionModel, encoder: CLIPTextModel) -> None:
    folder = settings.output / "diffusion"
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float16),
        text_encoder=encoder.cpu().half(),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=unet.cpu().half(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def main(num_steps: int | None = None) -> None:
    settings = load_settings()
    options = settings.train_unet
    folder = settings.output / "diffusion"
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = text_encoder(settings, tokenizer).to(device())
    web = Web.load()
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval().to(device())
    latents = torch.from_numpy(np.asarray(encode_latents(vae, web))).to(device())
    tokens, empty = web.tokens(tokenizer), token_ids(tokenizer, [""]).to(device())
    torch.manual_seed(settings.seed)
    unet = first_unet(settings, encoder.config.hidden_size).to(device(), memory_format=torch.channels_last)
    learned = torch.nn.ModuleDict({"unet": unet, "text_encoder": encoder})
    ema = deepcopy(learned).requires_grad_(False)
    scheduler, forward = build_scheduler(), compiled(unet)
    several = torch.from_numpy(np.argwhere(num_named() > 1)).to(device())

    def loss_at(step: int) -> Tensor:
        chosen = torch.from_numpy(batch_indices(len(web), options.batch_size, step, settings.seed)).to(device())
        captions = caption_choice(tokens.shape[1], len(chosen))
        count = round(options.several_share * len(chosen))
        chosen[:count], captions[:count] = several[torch.randint(len(several), (count,), device=device())].T
        dropped = torch.rand(len(chosen), 1, device=device()) < options.unconditional_share
        states = encoder(torch.where(dropped, empty, tokens[chosen, captions].long())).last_hidden_state
        batch = latents[chosen].float().contiguous(memory_format=torch.channels_last)
        return diffusion_loss(forward, scheduler, batch, states, options.snr_gamma)

    @torch.no_grad()
    def update_ema(step: int) -> None:
        decay = min(options.ema_decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(ema.parameters()), list(learned.parameters()), 1 - decay)

    train(
        "unet",
        {"learned": learned},
        loss_at,
        num_steps or options.num_steps,
        options.learning_rate,
        after_step=update_ema,
        frozen={"ema": ema},
    )
    save_pipeline(settings, ema["unet"], ema["text_encoder"])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
