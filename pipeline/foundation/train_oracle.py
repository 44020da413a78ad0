"""Train the oracle on web scenes drawn as it goes, half of them through the VAE, as generated images are."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from foundation_settings import load_settings
from torch import Tensor
from torch.nn import functional as F
from train_vae import published_vae
from training_loop import train

from tailorset.records import LabelSpace
from tailorset.seeding import numpy_rng
from tailorset.toybox.objects import COLOURS
from tailorset.toybox.oracle import IMAGE_PX, Oracle, save_oracle
from tailorset.toybox.scenes import Scene, render, web_scene

WEB_PX = 64
LATENT_NOISE = 0.3  # in units of the latents' spread: the part that the UNet leaves


def truth(scene: Scene, names: tuple[str, ...]) -> np.ndarray:
    """(L, 1 + C) bool: the labels in a scene, and their colours."""
    colours = list(COLOURS)
    shown = np.zeros((len(names), 1 + len(colours)), dtype=bool)
    for item in scene.items:
        shown[names.index(item.label), [0, 1 + colours.index(item.colour)]] = True
    return shown


def batch_of(scenes: list[Scene], names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Images (B, 3, 32, 32) in [0, 1] and what they show (B, L, 1 + C) float."""
    drawn = torch.from_numpy(np.stack([render(scene, WEB_PX) for scene in scenes])).permute(0, 3, 1, 2).float() / 255
    images = F.interpolate(drawn, size=(IMAGE_PX, IMAGE_PX), mode="area")
    return images, torch.from_numpy(np.stack([truth(scene, names) for scene in scenes])).float()


@torch.no_grad()
def through_vae(vae: AutoencoderKL, images: Tensor, noise: float) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] encoded and decoded again, with `noise` times the latents' spread added."""
    latents = vae.encode(2 * images - 1).latent_dist.mean
    latents = latents + noise / vae.config.scaling_factor * torch.randn_like(latents)
    return (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)


def main() -> None:
    settings = load_settings()
    options = settings.train_oracle
    names = LabelSpace.load(settings.label_space).names
    vae = published_vae(settings.published)
    torch.manual_seed(settings.seed)
    oracle = Oracle(names, list(COLOURS), options.width).to(memory_format=torch.channels_last).train()

    def loss_at(step: int) -> Tensor:
        rngs = [numpy_rng("oracle", settings.seed, step, i) for i in range(options.batch_size)]
        images, target = batch_of([web_scene(rng, names) for rng in rngs], names)
        half = len(images) // 2
        decoded = through_vae(vae, images[:half], LATENT_NOISE * float(torch.rand(())))
        images = torch.cat([decoded, images[half:]]).contiguous(memory_format=torch.channels_last)
        return F.binary_cross_entropy_with_logits(oracle(images), target) * len(names)

    train("oracle", {"oracle": oracle}, loss_at, options.num_steps, options.learning_rate)
    save_oracle(oracle, settings.output / "oracle")


if __name__ == "__main__":
    main()
