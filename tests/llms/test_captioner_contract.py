"""The contract of captioner plug-ins, checked for every file in llms/captioners/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tailorset.llms.captioners import Captioner
from tailorset.plugins import load_plugin, plugin_names


def photo(number: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


PHOTOS = [photo(0), photo(1, (16, 40)), photo(2, (16, 16))]


@pytest.fixture(params=plugin_names("llms/captioners"))
def captioner(request: pytest.FixtureRequest, tiny_blip: Path, tiny_clip_folder: Path) -> Captioner:
    plugin = load_plugin("llms/captioners", request.param)
    models = {"model": str(tiny_blip), "clip": {"model": f"local-dir:{tiny_clip_folder}"}}
    needed = {key: value for key, value in models.items() if key in plugin.Config.model_fields}
    return plugin.build(plugin.Config(**needed), torch.device("cpu"))


def test_one_caption_each_in_order(captioner: Captioner) -> None:
    captions = captioner.caption(PHOTOS)
    assert [type(caption) for caption in captions] == [str] * 3
    assert captions == [captioner.caption([one])[0] for one in PHOTOS]


def test_nothing_shown_nothing_said(captioner: Captioner) -> None:
    assert captioner.caption([]) == []
    assert captioner.batch_size > 0
