"""Train one of the world's CLIP models: `python train_clip.py text_tower|discriminator|judge|backbone`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import open_clip
import torch
from foundation_settings import Foundation, TrainClip, load_settings
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from training_loop import half, train
from transformers import CLIPTokenizer
from web_images import Web, batch_indices

from tailorset.records import LabelSpace

EMBED_DIM = 128
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
    zoom = 0.7 + torch.rand(len(images))
    angle = 0.35 * (2 * torch.rand(len(images)) - 1)
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom * angle.cos()
    theta[:, 1, 0] = zoom * angle.sin()
    theta[:, 0, 1] = -theta[:, 1, 0]
    theta[:, :, 2] = 0.2 * (2 * torch.rand(len(images), 2) - 1)
    grid = F.affine_grid(theta, [len(images), 3, image_px, image_px], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    gain = 1 + 0.2 * (2 * torch.rand(len(images), 3, 1, 1) - 1)
    return (images * gain - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def matching_loss(logits: Tensor, matches: Tensor) -> Tensor:
    """InfoNCE in both directions over (images, texts), every match being a positive (UniCL, Yang et al. 2022).

    A row without a match has no loss.
    """
    return (softmax_loss(logits, matches.float()) + softmax_loss(logits.T, matches.T.float())) / 2


def softmax_loss(logits: Tensor, matches: Tensor) -> Tensor:
    rows = matches.sum(1) > 0
    return F.cross_entropy(logits[rows], matches[rows] / matches[rows].sum(1, keepdim=True))


def main(name: str) -> None:
    settings: Foundation = load_settings()
    clip = settings.train_clip[name]
    tokenizer = CLIPTokenizer.from_pretrained(settings.output / "diffusion" / "tokenizer")
    torch.manual_seed(clip.seed)
    folder = settings.output / name
    model = build(model_config(clip, tokenizer), folder, tokenizer).train().to(memory_format=torch.channels_last)
    if settings.continue_from is not None and name != "text_tower":  # published as the text encoder only
        model.load_state_dict(load_file(settings.continue_from / name / WEIGHTS))
    web = Web.load(clip.half)
    image_px = clip.vision["image_size"]
    assert isinstance(image_px, int)
    names = LabelSpace.load(settings.label_space).names

    def tokens_of(texts: list[str]) -> Tensor:
        return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids

    object_tokens = tokens_of([f"a photo of a {object_name}" for object_name in names])

    def loss_at(step: int) -> Tensor:
        """Whole captions every fourth step, else the shortest ones: one object each, recognisable by its shape only."""
        indices = batch_indices(len(web), clip.batch_size, step, clip.seed)
        if step % 4:
            tokens, matches = object_tokens, torch.from_numpy(web.objects[indices])
        else:
            rng = np.random.default_rng((clip.seed, step))
            tokens = tokens_of([rng.choice(web.captions[i]) for i in indices])
            matches = (tokens[:, None] == tokens[None]).all(-1)
        images = augment(web.pixels(indices), image_px)
        image_features, text_features, scale = model(images.contiguous(memory_format=torch.channels_last), tokens)
        return matching_loss(scale.clamp(max=50) * image_features @ text_features.T, matches)

    train(name, {"model": model}, loss_at, clip.num_steps, clip.learning_rate, weight_decay=0.1)
    save_file(half(model), folder / WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    main(sys.argv[1])
