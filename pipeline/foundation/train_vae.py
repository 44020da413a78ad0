"""Train the autoencoder of the toybox diffusion model: 32 px images, factor 4, 4 latent channels."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from loop import train
from settings import load_settings
from torch import Tensor
from torch.nn import functional as F
from web import Web, batch_indices

IMAGE_PX = 32
KL_WEIGHT = 1e-6


def build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=IMAGE_PX,
    )


def vae_loss(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """L1 plus L1 of the gradients (keeps outlines) plus a small KL term; images (B, 3, P, P) in [-1, 1]."""
    posterior = vae.encode(images).latent_dist
    decoded = vae.decode(posterior.sample()).sample
    edges = sum(F.l1_loss(decoded.diff(dim=d), images.diff(dim=d)) for d in (-1, -2))
    return F.l1_loss(decoded, images) + edges + KL_WEIGHT * posterior.kl().mean()


def main() -> None:
    settings = load_settings()
    options = settings.train_vae
    torch.manual_seed(settings.seed)
    vae = build_vae().to(memory_format=torch.channels_last)
    web = Web.load()

    def loss_at(step: int) -> Tensor:
        images = web.pixels(batch_indices(len(web), options.batch_size, step, settings.seed), IMAGE_PX)
        return vae_loss(vae, (2 * images - 1).contiguous(memory_format=torch.channels_last))

    train("vae", {"vae": vae}, loss_at, options.num_steps, options.learning_rate)
    with torch.no_grad():
        sample = 2 * web.pixels(batch_indices(len(web), 512, 0, settings.seed), IMAGE_PX) - 1
        latents = vae.encode(sample).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    vae.half().save_pretrained(settings.output / "diffusion" / "vae")


if __name__ == "__main__":
    main()
