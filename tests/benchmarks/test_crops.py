"""The comparison of scores with positions and crops: its rows are what evaluation and a saved classifier compute."""

from __future__ import annotations

from pathlib import Path

import torch
from crops import PATCHES, classifier_variants, parts, variants
from torch.nn import functional as F

from tailorset.classifiers.dual_prompt import Config, build, load
from tailorset.clip.model import load_clip
from tailorset.clip.patches import patch_logits
from tailorset.records import LabelSpace
from tests.tiny_classifier import backbones, label_space  # noqa: F401


def test_the_row_of_patches_is_what_evaluation_computes(backbones: dict[str, str]) -> None:  # noqa: F811
    clip = load_clip(backbones["resnet"], "cpu")
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    texts = F.normalize(torch.randn(6, clip.architecture["embed_dim"]), dim=-1)
    rows = variants(parts(clip, images, texts), clip.logit_scale)
    with torch.no_grad():
        expected = patch_logits(clip, images.float() / 255, texts)
    torch.testing.assert_close(clip.logit_scale * rows[PATCHES] / 3, expected)
    assert all(scores.shape == (4, 6) for scores in rows.values())


def test_the_rows_of_crops_are_what_a_saved_classifier_computes(
    backbones: dict[str, str],  # noqa: F811
    label_space: LabelSpace,  # noqa: F811
    tmp_path: Path,
) -> None:
    settings = {"backbone": {"model": backbones["resnet"]}, "num_context_tokens": 4, "crop_weight": 0.25}
    build(Config.model_validate(settings), label_space).save(tmp_path)
    served = load(tmp_path, torch.device("cpu"))
    images = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8)
    with torch.no_grad():
        expected = served.logits(images.float() / 255)
    served.crop_weight = 0.0
    rows = classifier_variants(served, images, torch.randn(4, len(label_space.names)))
    torch.testing.assert_close(rows["classifier, crop_weight 0.25"], expected)
    assert not torch.allclose(rows["classifier, whole image"], expected)
