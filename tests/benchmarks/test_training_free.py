"""The comparison of scores without training: its best row is the one that evaluation reports."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from training_free import parts, variants

from tailorset.clip.model import load_clip
from tailorset.clip.patches import patch_logits
from tests.tiny_classifier import backbones  # noqa: F401


def test_the_row_of_patches_is_what_evaluation_computes(backbones: dict[str, str]) -> None:  # noqa: F811
    clip = load_clip(backbones["resnet"], "cpu")
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    texts = F.normalize(torch.randn(6, clip.architecture["embed_dim"]), dim=-1)
    rows = variants(parts(clip, images, texts), clip.logit_scale)
    with torch.no_grad():
        expected = patch_logits(clip, images.float() / 255, texts)
    torch.testing.assert_close(
        clip.logit_scale * rows["whole + best position + best crop (clip_patches)"] / 3, expected
    )
    assert all(scores.shape == (4, 6) for scores in rows.values())
