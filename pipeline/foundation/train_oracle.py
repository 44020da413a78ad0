"""Train the oracle on the web images, half of each batch through the VAE, as generated images are."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from foundation_settings import load_settings
from torch import Tensor
from torch.nn import functional as F
from training_loop import compiled, device, train
from web_images import Web, batch_indices

from tailorset.records import LabelSpace
from tailorset.toybox.objects import COLOURS
from tailorset.toybox.oracle import Oracle, save_oracle

LATENT_NOISE = 0.3  # in units of the latents' spread: the part that the UNet leaves


@torch.no_grad()
def through_vae(vae: AutoencoderKL, images: Tensor, noise: float) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1] encoded and decoded again, with `noise` times the latents' spread added."""
    latents = vae.encode(2 * images - 1).latent_dist.mean
    latents = latents + noise / vae.config.scaling_factor * torch.randn_like(latents)
    return (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)


def main() -> None:
    settings = load_settings()
    options = settings.train_oracle
    names = LabelSpace.load(settings.label_space).names
    folder = settings.output / "diffusion" / "vae"
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval().to(device())
    web = Web.load()
    torch.manual_seed(settings.seed)
    oracle = Oracle(names, list(COLOURS), options.width).to(device(), memory_format=torch.channels_last).train()
    forward = compiled(oracle.both)

    def loss_at(step: int) -> Tensor:
        indices = batch_indices(len(web), options.batch_size, step, settings.seed)
        chosen = torch.from_numpy(indices).to(device())
        images, half = web.pixels(indices), len(indices) // 2
        decoded = through_vae(vae, images[:half], LATENT_NOISE * float(torch.rand(())))
        images = torch.cat([decoded.float(), images[half:]])
        images = images.flip(-1) if step % 2 else images
        shown, style = forward(images.contiguous(memory_format=torch.channels_last))
        of_style = F.binary_cross_entropy_with_logits(style.float(), web.is_snapshot[chosen].float())
        return F.binary_cross_entropy_with_logits(shown.float(), web.shown[chosen].float()) * len(names) + of_style

    train("oracle", {"oracle": oracle}, loss_at, options.num_steps, options.learning_rate)
    save_oracle(oracle.cpu(), settings.output / "oracle")


if __name__ == "__main__":
    main()
