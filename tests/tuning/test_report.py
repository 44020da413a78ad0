"""The report on tuning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tailorset.clip.model import load_clip
from tailorset.clip.scorer import LabelScorer
from tailorset.images.sheets import GAP_PX
from tailorset.tuning.report import Pictures, before_after_sheet
from tests.tuning_prompts import PROMPTS, UNSEEN


@pytest.mark.parametrize(("image_px", "tile_px"), [(64, 192), (256, 256)])
def test_small_images_are_enlarged_and_large_ones_are_not(tiny_clip_folder: Path, image_px: int, tile_px: int) -> None:
    """Three times as large, those of the preset for SDXL would make a sheet of 400 million pixels."""
    scorer = LabelScorer(load_clip(f"local-dir:{tiny_clip_folder}", "cpu"), UNSEEN, "a photo of a {}")
    images = torch.rand(2, 3, image_px, image_px)
    sheet = before_after_sheet(scorer, PROMPTS[:2], Pictures(images, images))
    assert sheet.width == 2 * tile_px + 3 * GAP_PX  # two prompts, before above after
