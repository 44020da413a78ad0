"""Fusion, dense features and label prompts on open_clip's own architectures at real size, with random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import open_clip
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from real_models import random_clip

from tailorset.classifiers.dual_prompt import on_clip
from tailorset.classifiers.parts.label_prompts import TextTower, label_token_ids
from tailorset.project.presets import load_preset
from tailorset.records import LabelSpace

ROOT = Path(__file__).resolve().parents[2]
BACKBONES = {"RN50-quickgelu": 16, "RN101-quickgelu": 33, "ViT-B-16": 12, "ViT-L-14": 24}  # blocks that get a branch
GRIDS = {"RN50-quickgelu": 7, "RN101-quickgelu": 7, "ViT-B-16": 14, "ViT-L-14": 16}


@pytest.mark.parametrize(
    "name",
    [
        "RN50-quickgelu",
        "ViT-B-16",
        pytest.param("RN101-quickgelu", marks=pytest.mark.slow),
        pytest.param("ViT-L-14", marks=pytest.mark.slow),
    ],
)
def test_a_real_backbone_is_trained_through_every_part(name: str, label_space: LabelSpace) -> None:
    config = load_preset("coco", ROOT / "presets").train_classifier.config
    torch.manual_seed(0)
    classifier = on_clip(config, label_space, random_clip(name, torch.device("cpu"))).train()
    assert len(classifier.fusion) == BACKBONES[name]
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))  # resized to the backbone's own size
    logits = classifier.logits(images)
    assert logits.shape == (2, len(label_space.names))
    logits.square().sum().backward()
    for part, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, part
            assert parameter.grad.isfinite().all(), part
            assert parameter.grad.abs().max() > 0, part
    with torch.no_grad():
        maps = classifier.eval().spatial_maps(images[:1])
    assert maps.shape[-2:] == (GRIDS[name], GRIDS[name])


@pytest.mark.parametrize("preset", ["coco", "nus_wide"])
def test_the_contexts_of_the_presets_leave_room_for_every_label(preset: str) -> None:
    params = load_preset(preset, ROOT / "presets")
    config, labels = params.train_classifier.config, LabelSpace.load(ROOT / params.label_space)
    with torch.device("meta"):
        tower = TextTower(open_clip.create_model(config.backbone.model, device="meta"))
    tokenizer = open_clip.get_tokenizer(config.backbone.model)
    ids = label_token_ids(tower, tokenizer, labels.names, config.num_context_tokens)
    assert ids.shape == (len(labels.names), 77)
    assert config.num_context_tokens == 64
