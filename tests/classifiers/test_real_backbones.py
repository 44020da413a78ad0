"""Fusion, dense features and label prompts on open_clip's own architectures at real size, with random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import open_clip
import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from real_models import random_clip

from tailorset.classifiers.dual_prompt import on_clip
from tailorset.classifiers.parts.label_prompts import label_token_ids
from tailorset.classifiers.parts.support_cache import CacheConfig
from tailorset.classifiers.parts.text_towers import TextTower
from tailorset.project.presets import load_preset
from tailorset.records import LabelSpace

ROOT = Path(__file__).resolve().parents[2]
BACKBONES = {  # blocks that get a branch
    "RN50-quickgelu": 16,
    "RN101-quickgelu": 33,
    "ViT-B-16": 12,
    "ViT-L-14": 24,
    "PE-Core-T-16-384": 12,
    "PE-Core-S-16-384": 12,
}
GRIDS = dict.fromkeys(BACKBONES, 24) | {"RN50-quickgelu": 7, "RN101-quickgelu": 7, "ViT-B-16": 14, "ViT-L-14": 16}


@pytest.mark.parametrize(
    "name",
    [
        "RN50-quickgelu",
        "ViT-B-16",
        "PE-Core-T-16-384",
        pytest.param("PE-Core-S-16-384", marks=pytest.mark.slow),
        pytest.param("RN101-quickgelu", marks=pytest.mark.slow),
        pytest.param("ViT-L-14", marks=pytest.mark.slow),
    ],
)
def test_a_real_backbone_is_trained_through_every_part(name: str, label_space: LabelSpace) -> None:
    config = load_preset("coco", ROOT / "presets").train_classifier.config
    if name.startswith("PE-Core"):
        config = config.model_copy(update={"num_context_tokens": 16})  # its text tower reads 32
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


@pytest.mark.parametrize(
    ("name", "width"), [("ViT-B-16", 512), pytest.param("RN50-quickgelu", 1024, marks=pytest.mark.slow)]
)
def test_separate_tokens_and_a_full_cache_fit_a_real_backbone(name: str, width: int, label_space: LabelSpace) -> None:
    config = load_preset("coco", ROOT / "presets").train_classifier.config
    config = config.model_copy(update={"separate_tokens": 32, "cache": CacheConfig(), "fusion": False})
    classifier = on_clip(config, label_space, random_clip(name, torch.device("cpu"))).train()
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    classifier.of_sources(images, ["real", "synthetic"]).square().sum().backward()
    for tokens in (classifier.prompts.generated_tokens, classifier.prompts.contexts):
        assert tokens.grad is not None
        assert tokens.grad.isfinite().all()
        assert tokens.grad[:, -32:].abs().max() > 0
    with torch.no_grad():
        logits, features = classifier.eval().without_cache(images)
        assert features.shape == (2, width)
        targets = torch.randint(0, 2, (config.cache.max_images, len(label_space.names)))
        classifier.cache.fill(F.normalize(torch.randn(len(targets), width), dim=-1), targets)
        classifier.cache.use({"cache_alpha": 8, "cache_beta": 80})
        assert not torch.equal(classifier.logits(images), logits)
    size = sum(buffer.numel() * buffer.element_size() for buffer in classifier.cache.buffers())
    assert size == 4 * (len(targets) * (width + len(label_space.names)) + 2)


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
