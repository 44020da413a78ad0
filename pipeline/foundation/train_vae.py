"""Train the autoencoder of the toybox diffusion model: 64 px images, factor 4, 8 latent channels."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from foundation_settings import load_settings
from torch import Tensor
from torch.nn import functional as F
from training_loop import device, train
from web_images import Web, batch_indices

IMAGE_PX, LATENT_CHANNELS = 64, 8
CROP_PX = 32  # of the first training: the network is local, and a crop costs a quarter
KL_WEIGHT = 1e-6


def build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=16,
        sample_size=IMAGE_PX,
        mid_block_add_attention=False,  # local, so that it learns from crops
    )


def vae_loss(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Reconstruction of noisy latents and a small KL; images (B, 3, P, P) in [-1, 1]."""
    posterior = vae.encode(images).latent_dist
    return reconstruction_loss(vae, posterior.sample(), images) + KL_WEIGHT * posterior.kl().mean()


def reconstruction_loss(vae: AutoencoderKL, latents: Tensor, images: Tensor) -> Tensor:
    """L1 of pixels, of their gradients (outlines) and of 4 px means (colours)."""
    error = vae.decode(latents).sample - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    colour = F.avg_pool2d(error, 4).abs().mean()
    return error.abs().mean() + 0.5 * edges + 2 * colour


@torch.no_grad()
def scaling_factor(vae: AutoencoderKL, images: Tensor) -> float:
    """Factor that gives the latents unit variance."""
    return round(1 / vae.encode(images).latent_dist.mean.std().item(), 5)


def main() -> None:
    settings = load_settings()
    options = settings.train_vae
    torch.manual_seed(settings.seed)
    vae = build_vae() if settings.continue_from is None else published_vae(settings.continue_from)
    vae = vae.to(device(), memory_format=torch.channels_last)
    web = Web.load()

    def images_at(step: int) -> Tensor:
        images = web.pixels(batch_indices(len(web), options.batch_size, step, settings.seed), IMAGE_PX)
        return (2 * images - 1).contiguous(memory_format=torch.channels_last)

    def crops_at(step: int) -> Tensor:
        top, left = torch.randint(IMAGE_PX - CROP_PX + 1, (2,)).tolist()
        crops = images_at(step)[..., top : top + CROP_PX, left : left + CROP_PX]
        return crops.contiguous(memory_format=torch.channels_last)

    def decoder_loss_at(step: int) -> Tensor:
        images = images_at(options.num_steps + step)
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.mean
        return reconstruction_loss(vae, latents, images)

    if settings.continue_from is None:  # else the encoder stays: the UNet was trained on its latents
        rate = options.learning_rate
        train("vae", {"vae": vae}, lambda step: vae_loss(vae, crops_at(step)), options.num_steps, rate)
        sample = 2 * web.pixels(batch_indices(len(web), 512, 0, settings.seed), IMAGE_PX) - 1
        vae.register_to_config(scaling_factor=scaling_factor(vae, sample))
    decoder = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    train("vae_decoder", decoder, decoder_loss_at, options.num_decoder_steps, options.learning_rate)
    vae.cpu().half().save_pretrained(settings.output / "diffusion" / "vae")


def published_vae(folder: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(folder / "diffusion" / "vae", torch_dtype=torch.float32)


if __name__ == "__main__":
    main()
