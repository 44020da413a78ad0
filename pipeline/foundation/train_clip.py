"""Train one of the world's CLIP models: `python train_clip.py text_tower|discriminator|judge|backbone`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import open_clip
import torch
from foundation_settings import Foundation, TrainClip, load_settings
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from training_loop import compiled, device, half, train
from transformers import CLIPTokenizer
from web_images import Web, batch_indices, caption_choice, token_ids

from tailorset.records import LabelSpace

EMBED_DIM = 128
STEPS = 20  # of which a share sees the names of objects instead of captions
WEIGHTS = "open_clip_model.safetensors"
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def model_config(clip: TrainClip, tokenizer: CLIPTokenizer) -> dict[str, object]:
    text = {
        "context_length": tokenizer.model_max_length,
        "vocab_size": len(tokenizer),
        "width": 128,
        "heads": 4,
        "layers": 4,
        "hf_tokenizer_name": "local",
    }
    return {"embed_dim": EMBED_DIM, "vision_cfg": clip.vision, "text_cfg": text}


def build(config: dict[str, object], folder: Path, tokenizer: CLIPTokenizer) -> nn.Module:
    """Write the `local-dir:` folder (config, tokenizer) and build the model in fp32 with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    description = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(description, indent=2) + "\n")
    tokenizer.save_pretrained(folder)
    return open_clip.model.CLIP(**config)


def augment(images: Tensor, image_px: int) -> Tensor:
    """Random flip, turn, crop and resolution: (B, 3, P, P) in [0, 1] -> normalised (B, 3, image_px, image_px).

    Half of the batches pass through 32 px first: web images come in all resolutions.
    """
    if torch.rand(()) < 0.5:
        images = F.interpolate(images, size=(32, 32), mode="area")
    if torch.rand(()) < 0.5:
        images = images.flip(-1)
    place = images.device
    zoom = 0.7 + torch.rand(len(images), device=place)
    angle = 0.35 * (2 * torch.rand(len(images), device=place) - 1)
    theta = torch.zeros(len(images), 2, 3, device=place)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom * angle.cos()
    theta[:, 1, 0] = zoom * angle.sin()
    theta[:, 0, 1] = -theta[:, 1, 0]
    theta[:, :, 2] = 0.2 * (2 * torch.rand(len(images), 2, device=place) - 1)
    grid = F.affine_grid(theta, [len(images), 3, image_px, image_px], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    gain = 1 + 0.2 * (2 * torch.rand(len(images), 3, 1, 1, device=place) - 1)
    mean, std = (torch.tensor(value, device=place).view(3, 1, 1) for value in (MEAN, STD))
    return (images * gain - mean) / std


def matching_loss(logits: Tensor, matches: Tensor) -> Tensor:
    """InfoNCE in both directions over (images, texts), every match being a positive (UniCL, Yang et al. 2022).

    A row without a match has no loss.
    """
    return (softmax_loss(logits, matches.float()) + softmax_loss(logits.T, matches.T.float())) / 2


def softmax_loss(logits: Tensor, matches: Tensor) -> Tensor:
    counts = matches.sum(1)
    losses = F.cross_entropy(logits, matches / counts.clamp(min=1)[:, None], reduction="none")  # 0 without a match
    return losses.sum() / (counts > 0).sum().clamp(min=1)


def main(name: str) -> None:
    settings: Foundation = load_settings()
    clip = settings.train_clip[name]
    tokenizer = CLIPTokenizer.from_pretrained(settings.output / "diffusion" / "tokenizer")
    torch.manual_seed(clip.seed)
    folder = settings.output / name
    model = build(model_config(clip, tokenizer), folder, tokenizer).train()
    model = model.to(device(), memory_format=torch.channels_last)
    if settings.continue_from is not None and name != "text_tower":  # published as the text encoder only
        model.load_state_dict(load_file(settings.continue_from / name / WEIGHTS))
    web = Web.load(clip.half)
    image_px = clip.vision["image_size"]
    assert isinstance(image_px, int)
    names = LabelSpace.load(settings.label_space).names
    tokens = web.tokens(tokenizer)
    object_tokens = token_ids(tokenizer, [f"a photo of a {object_name}" for object_name in names]).to(device())
    forward = compiled(model)

    def loss_at(step: int) -> Tensor:
        """Return the loss on whole captions, or in `object_captions` of the steps on the objects' names alone."""
        indices = batch_indices(len(web), clip.batch_size, step, clip.seed)
        chosen = torch.from_numpy(indices).to(device())
        if step >= clip.captions_first and step % STEPS < round(STEPS * clip.object_captions):
            texts, matches = object_tokens, web.shown[chosen, :, 0]
        else:
            texts = tokens[chosen, caption_choice(tokens.shape[1], len(chosen))].long()
            matches = (texts[:, None] == texts[None]).all(-1)
        images = augment(web.pixels(indices), image_px).contiguous(memory_format=torch.channels_last)
        image_features, text_features, scale = forward(images, texts)
        with torch.autocast(device().type, enabled=False):  # near 1, cosines in bfloat16 differ by 0.004 or not at all
            cosines = image_features.float() @ text_features.float().T
        return matching_loss(scale.clamp(max=50) * cosines, matches)

    train(name, {"model": model}, loss_at, clip.num_steps, clip.learning_rate, weight_decay=0.1)
    save_file(half(model), folder / WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    main(sys.argv[1])
