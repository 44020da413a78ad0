"""CLIPs with another image tower or loss, of real size with random weights: open_clip's own call is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from tailorset.clip.dense_features import dense_encoder
from tailorset.clip.losses import grouped_softmax
from tailorset.clip.model import Clip, OpenClip
from tailorset.clip.scorer import LabelScorer
from tests.storage.test_hub import NEW, cached_repository

NAMES, TEMPLATE = ("kite", "boat", "clock"), "a photo of a {}"


def open_from_hub(model: str, pretrained: str, cache: Path) -> Clip:
    """Random weights of a model, under the file's name in the hub's cache, loaded as params.yaml would name them."""
    named = OpenClip(model=model, pretrained=pretrained)
    repository = cached_repository(cache, {"main": NEW}, name=str(named.repository))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = {name: weight.contiguous() for name, weight in open_clip.create_model(model).state_dict().items()}
    save_file(weights, repository / "snapshots" / NEW / "open_clip_model.safetensors")
    return named.load("cpu")


def check_scores(clip: Clip, grid: int) -> None:
    """Compare the scores with open_clip's, look for their gradient, and compare the features of a backbone."""
    images = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    texts = clip.encode_texts(NAMES, TEMPLATE)
    tokens = clip.tokenizer([TEMPLATE.format(name) for name in NAMES])
    assert tokens.shape[1] == clip.architecture["text_cfg"]["context_length"]
    with torch.no_grad():
        expected, _ = clip.model.get_logits(clip.preprocess(images), tokens)
    actual = clip.logits(images.requires_grad_(), texts)
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=0)
    requested = torch.tensor([[True, False, False], [True, True, False]])
    torch.testing.assert_close(grouped_softmax(actual, requested), grouped_softmax(expected, requested))
    actual[:, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert LabelScorer(clip, NAMES, TEMPLATE).labels == NAMES
    with torch.no_grad():
        dense, pooled = dense_encoder(clip.model.visual)(clip.preprocess(images))
        torch.testing.assert_close(pooled, clip.encode_images(images))
    assert dense.shape == (2, grid**2, clip.architecture["embed_dim"])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_perception_encoder_judges(cache: Path) -> None:
    """PE-Core-T has the parts of PE-Core-B, which the presets name, with fewer layers and an image of 384 px."""
    clip = open_from_hub("PE-Core-T-16-384", "meta", cache)
    assert (clip.image_px, clip.interpolation) == (384, "bilinear")
    check_scores(clip, 24)


def test_the_judge_of_the_presets_has_the_parts_of_the_one_that_is_tested() -> None:
    with torch.device("meta"):
        small, named = (open_clip.create_model(name, device="meta") for name in ("PE-Core-T-16-384", "PE-Core-B-16"))
    assert {type(part) for part in small.modules()} == {type(part) for part in named.modules()}
    assert sum(weight.numel() for weight in named.parameters()) == 447_660_545


def test_siglip_2_judges_with_its_bias(cache: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any) -> None:
    """Its image tower is the real one; two layers of text and another tokenizer stand in for those of the hub."""
    name = "ViT-B-32-SigLIP2-256"
    config = open_clip.get_model_config(name)
    config["text_cfg"] |= {
        "vocab_size": len(tiny_tokenizer),
        "layers": 2,
        "hf_tokenizer_name": str(cache / "tokenizer"),
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    tiny_tokenizer.save_pretrained(cache / "tokenizer")
    clip = open_from_hub(name, "webli", cache)
    assert clip.image_px == 256
    assert float(clip.model.logit_bias) == -10
    check_scores(clip, 8)
