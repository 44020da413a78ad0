"""A tiny random CLIP of each supported class, for tests and for benchmarks that need no trained one."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

IMAGE_PX = 64
VISION = {
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "image_size": IMAGE_PX, "patch_size": None},
    "vit": {"layers": 2, "width": 32, "head_width": 8, "image_size": IMAGE_PX, "patch_size": 16},
}
CONTEXT_LENGTH = 24


def tiny_tokenizer() -> CLIPTokenizer:
    """One token a letter; the end token has the highest id, as in OpenAI's vocabulary."""
    letters = list(string.ascii_lowercase)
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=CONTEXT_LENGTH)


def write_backbone(folder: Path, vision: str, custom_text: bool = False, seed: int = 0) -> str:
    """A `local-dir:` folder with random weights; returns its open_clip name."""
    tokenizer = tiny_tokenizer()
    text: dict[str, Any] = {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": len(tokenizer),
        "width": 32,
        "heads": 2,
        "layers": 2,
    }
    config: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VISION[vision], "text_cfg": text}
    torch.manual_seed(seed)
    model = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):  # zero in a fresh tower, which would cut every residual branch off
            torch.nn.init.ones_(parameter)
    text["hf_tokenizer_name"] = "local"
    description = {
        "model_cfg": config | {"custom_text": custom_text},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(description))
    tokenizer.save_pretrained(folder)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"
