"""CLIP without training that looks at parts of an image too."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.nn import functional as F

from tailorset.clip.dense_features import crops, dense_encoder
from tailorset.clip.model import Clip, load_clip
from tailorset.clip.patches import patch_logits
from tailorset.evaluation.comparison import clip_methods
from tailorset.records import LabelSpace
from tests.tiny_classifier import backbones, label_space  # noqa: F401


@pytest.fixture(params=["resnet", "vit", "tiny_siglip", "tiny_pe_core"])
def clip(request: pytest.FixtureRequest, backbones: dict[str, str]) -> Clip:  # noqa: F811
    return load_clip(backbones[request.param], "cpu")


def test_scores_are_the_mean_of_the_whole_the_best_position_and_the_best_crop(clip: Clip) -> None:
    images = torch.rand(3, 3, 40, 56)
    texts = F.normalize(torch.randn(5, clip.architecture["embed_dim"]), dim=-1)
    with torch.no_grad():
        found = patch_logits(clip, images, texts)
        dense, _ = dense_encoder(clip.model.visual)(clip.preprocess(images))
        whole = clip.encode_images(images) @ texts.T
        corners = [images[..., y : y + 24, x : x + 34] for y in (0, 16) for x in (0, 22)]
        cropped = torch.stack([clip.encode_images(corner) @ texts.T for corner in corners])
    best = (dense @ texts.T).max(dim=1).values + cropped.max(dim=0).values
    torch.testing.assert_close(found, clip.logit_scale * (whole + best) / 3 + clip.logit_bias)


def test_crops_overlap_and_leave_nothing_out() -> None:
    places = torch.arange(100.0).view(1, 1, 10, 10).expand(1, 3, 10, 10)
    seen = torch.stack([torch.bincount(crop[0, 0].long().flatten(), minlength=100) for crop in crops(places)]).sum(0)
    assert seen.min() == 1
    assert seen.view(10, 10)[4:6, 4:6].tolist() == [[4, 4], [4, 4]]


def test_a_tower_without_positions_has_no_row_and_says_why(
    backbones: dict[str, str],  # noqa: F811
    label_space: LabelSpace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clip = load_clip(backbones["vit"], "cpu")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    arguments = (images, label_space, "a photo of a {}", ["a {}"])
    rows = [method.row.method for method in clip_methods(clip, *arguments)]
    assert rows == ["clip", "clip_ensemble", "clip_normalised", "clip_patches"]
    monkeypatch.setattr(clip.model.visual, "pool_type", "avg")
    with caplog.at_level(logging.WARNING):
        assert [method.row.method for method in clip_methods(clip, *arguments)] == rows[:3]
    assert "no row 'CLIP with patches and crops': no dense features" in caplog.text
