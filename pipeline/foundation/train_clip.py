"""Train one of the world's CLIP models: `python train_clip.py text_tower|discriminator|judge|backbone`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import open_clip
import torch
from loop import half, train
from safetensors.torch import save_file
from settings import Foundation, TrainClip, load_settings
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizer
from web import Web, batch_indices

from tailorset.records import LabelSpace

EMBED_DIM = 128
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
    """Random flip, crop and resolution: (B, 3, P, P) in [0, 1] -> normalised (B, 3, image_px, image_px).

    Half of the batches pass through 32 px first: web images come in all resolutions.
    """
    if torch.rand(()) < 0.5:
        images = F.interpolate(images, size=(32, 32), mode="area")
    if torch.rand(()) < 0.5:
        images = images.flip(-1)
    zoom = 1 + 0.3 * (2 * torch.rand(len(images)) - 1)
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = 0.2 * (2 * torch.rand(len(images), 2) - 1)
    grid = F.affine_grid(theta, [len(images), 3, image_px, image_px], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    gain = 1 + 0.2 * (2 * torch.rand(len(images), 3, 1, 1) - 1)
    return (images * gain - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def contrastive_loss(model: nn.Module, images: Tensor, tokens: Tensor) -> Tensor:
    """InfoNCE in both directions; equal captions in a batch are each other's positives (UniCL, Yang et al. 2022)."""
    image_features, text_features, scale = model(images, tokens)
    logits = scale.clamp(max=50) * image_features @ text_features.T
    equal = (tokens[:, None] == tokens[None]).all(-1).float()
    targets = equal / equal.sum(1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def object_caption(names: list[str], rng: np.random.Generator) -> str:
    """The shortest web caption: one of the image's objects, without colour or place, so that only shape tells it."""
    return f"a photo of a {rng.choice(names)}"


def main(name: str) -> None:
    settings: Foundation = load_settings()
    clip = settings.train_clip[name]
    tokenizer = CLIPTokenizer.from_pretrained(settings.output / "diffusion" / "tokenizer")
    torch.manual_seed(clip.seed)
    folder = settings.output / name
    model = build(model_config(clip, tokenizer), folder, tokenizer).train().to(memory_format=torch.channels_last)
    web = Web.load(clip.half)
    names = np.array(LabelSpace.load(settings.label_space).names)

    def loss_at(step: int) -> Tensor:
        indices = batch_indices(len(web), clip.batch_size, step, clip.seed)
        rng = np.random.default_rng((clip.seed, step))
        if step % 2:
            texts = [object_caption(names[web.objects[i]].tolist(), rng) for i in indices]
        else:
            texts = [rng.choice(web.captions[i]) for i in indices]
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        images = augment(web.pixels(indices), int(clip.vision["image_size"]))
        return contrastive_loss(model, images.contiguous(memory_format=torch.channels_last), tokens)

    train(name, {"model": model}, loss_at, clip.num_steps, clip.learning_rate, weight_decay=0.1)
    save_file(half(model), folder / "open_clip_model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main(sys.argv[1])
