"""Captioners read safetensors only, write the likeliest caption, and name the remedy where they cannot."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tailorset.clip.model import OpenClip, load_clip
from tailorset.llms.captioners import blip, scenes
from tests.llms.test_captioner_contract import PHOTOS

CPU = torch.device("cpu")


def test_blip_writes_what_the_stock_model_generates_greedily(tiny_blip: Path) -> None:
    import transformers

    model = transformers.BlipForConditionalGeneration.from_pretrained(tiny_blip).eval()
    processor = transformers.AutoProcessor.from_pretrained(tiny_blip)
    inputs = processor(images=PHOTOS, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    expected = [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
    captioner = blip.build(blip.Config(model=str(tiny_blip), max_new_tokens=6, batch_size=2), CPU)
    assert captioner.caption(PHOTOS) == expected
    assert all(expected)


def test_blip_without_its_weights_says_what_to_name(tiny_blip: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"captioner 'nobody/nothing' cannot be loaded.*captioning model"):
        blip.build(blip.Config(model="nobody/nothing"), CPU)
    shutil.copytree(tiny_blip, tmp_path / "pickled")
    weights = tmp_path / "pickled" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ValueError, match="cannot be loaded"):
        blip.build(blip.Config(model=str(tmp_path / "pickled")), CPU)


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json"])
def test_blip_with_files_that_no_library_reads_is_refused(tiny_blip: Path, tmp_path: Path, file: str) -> None:
    folder = shutil.copytree(tiny_blip, tmp_path / "odd")
    (folder / file).write_text('{"added_tokens": [], "model": {}}' if file == "tokenizer.json" else "[]")
    with pytest.raises(ValueError, match=r"captioner '.*odd' cannot be loaded"):
        blip.build(blip.Config(model=str(folder)), CPU)


def test_a_model_that_reads_no_photos_is_refused_before_its_weights_are_read(tiny_llm: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llm, tmp_path / "chat")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"captioner '.*chat' cannot be loaded: its \w+ reads no photos, or wants a"):
        blip.build(blip.Config(model=str(folder)), CPU)


def test_scenes_are_ranked_by_the_clip(tiny_clip_folder: Path) -> None:
    model = f"local-dir:{tiny_clip_folder}"
    wordings = ("in the red tree", "next to the boat", "in a cup")
    captioner = scenes.build(scenes.Config(clip=OpenClip(model=model), scenes=wordings), CPU)
    clip = load_clip(model, CPU)
    texts = clip.encode_texts([f"a photo {wording}" for wording in wordings], "{}")
    flat = [Image.fromarray(np.full((20, 20, 3), grey, np.uint8)) for grey in (0, 128, 255)]
    for photo in (*PHOTOS, *flat):
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
        best = wordings[int((clip.encode_images(pixels) @ texts.T).argmax())]
        assert captioner.caption([photo]) == [best]


def test_one_scene_is_no_choice() -> None:
    with pytest.raises(ValueError, match="at least 2 items"):
        scenes.Config(clip=OpenClip(model="local-dir:clip"), scenes=("in the snow",))
