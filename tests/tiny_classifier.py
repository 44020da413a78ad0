"""A tiny random CLIP of each supported class, a label space and annotated random images."""

from __future__ import annotations

import json
import string
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from tailorset.records import LabelSpace
from tailorset.storage.image_set import ImageSet

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
    text = {"context_length": CONTEXT_LENGTH, "vocab_size": len(tokenizer), "width": 32, "heads": 2, "layers": 2}
    config = {"embed_dim": 16, "vision_cfg": VISION[vision], "text_cfg": text}
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


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("backbones")
    names = {vision: write_backbone(root / vision, vision) for vision in VISION}
    return names | {"custom_text": write_backbone(root / "custom_text", "resnet", custom_text=True)}


@pytest.fixture
def label_space() -> LabelSpace:
    labels = [{"name": name, "seen": name not in ("fish", "key")} for name in ("fish", "ball", "key", "car", "hat")]
    return LabelSpace.model_validate({"name": "tiny", "labels": labels})


def image_set(label_space: LabelSpace, count: int, kind: str, seed: int = 0) -> ImageSet:
    """Random images; kind: `real` annotates seen labels, `synthetic` unseen ones, `full` all."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, IMAGE_PX, IMAGE_PX), generator=generator, dtype=torch.uint8)
    targets = torch.randint(0, 2, (count, len(label_space.names)), generator=generator, dtype=torch.int8)
    hidden = {"real": label_space.unseen, "synthetic": label_space.seen, "full": ()}[kind]
    targets[:, [label_space.index(name) for name in hidden]] = -1
    targets[0] = torch.where(targets[0] < 0, targets[0], 1)
    source = "synthetic" if kind == "synthetic" else "real"
    return ImageSet(tuple(f"{kind}{index}" for index in range(count)), images, targets, source)


@pytest.fixture
def real(label_space: LabelSpace) -> ImageSet:
    return image_set(label_space, 12, "real")


@pytest.fixture
def synthetic(label_space: LabelSpace) -> ImageSet:
    return image_set(label_space, 7, "synthetic", seed=1)


@pytest.fixture
def val(label_space: LabelSpace) -> ImageSet:
    return image_set(label_space, 10, "full", seed=2)
