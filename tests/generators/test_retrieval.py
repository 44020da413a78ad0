"""Generator retrieval: images of a folder, chosen by a CLIP and a seed."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tailorset.generators.retrieval import Config, build
from tailorset.images.codec import encode_png
from tailorset.storage.held_out import photo_signature

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One photo per colour, the colour everywhere but in a corner of its own brightness."""
    for name, colour in COLOURS.items():
        pixels = np.full((24, 40, 3), colour, dtype=np.uint8)
        pixels[:4, :4] //= 2
        (tmp_path / f"{name}.png").write_bytes(encode_png(pixels))
    return tmp_path


def config(folder: Path, clip: Path, nearest: int = 3) -> Config:
    return Config(images=folder, model=f"local-dir:{clip}", nearest=nearest, image_px=16)


def test_a_prompt_gets_the_images_nearest_to_it_by_the_clip(folder: Path, tiny_clip_folder: Path) -> None:
    retrieval = build(config(folder, tiny_clip_folder, nearest=1), "cpu")
    text = retrieval.clip.encode_texts(["a red cup"], "{}")
    nearest = retrieval.paths[int((retrieval.features @ text[0]).argmax())]
    images = retrieval.sample(["a red cup"] * 4, [1, 2, 3, 4], 1)
    expected = torch.tensor(COLOURS[nearest.stem]) / 255
    assert torch.allclose(images[:, :, 8, 8], expected.expand(4, 3), atol=0.02)


def test_the_seed_chooses_among_the_nearest(folder: Path, tiny_clip_folder: Path) -> None:
    retrieval = build(config(folder, tiny_clip_folder), "cpu")
    images = retrieval.sample(["a red cup"] * 30, list(range(30)), 1)
    assert len(images[:, :, 8, 8].round(decimals=1).unique(dim=0)) == len(COLOURS)


def test_an_unreadable_image_is_left_out_and_named(
    folder: Path, tiny_clip_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "broken.jpg").write_bytes(b"not an image")
    with caplog.at_level(logging.WARNING):
        assert len(build(config(folder, tiny_clip_folder), "cpu").paths) == len(COLOURS)
    assert "1 of 4 images" in caplog.text
    assert "broken.jpg" in caplog.text


def test_the_images_are_those_that_check_finds(
    folder: Path, tiny_clip_folder: Path, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Those in linked folders, as data sets are laid out, and none in hidden ones; what cannot be read is named."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for place in (folder / ".thumbnails", elsewhere):
        place.mkdir(exist_ok=True)
        shutil.copy(folder / "red.png", place)
    (folder / "linked").symlink_to(elsewhere)
    (folder / "lost.png").symlink_to("nowhere.png")
    with caplog.at_level(logging.WARNING):
        paths = build(config(folder, tiny_clip_folder), "cpu").paths
    names = ["blue.png", "green.png", "linked/red.png", "red.png"]
    assert [path.relative_to(folder).as_posix() for path in paths] == names
    assert "generator.images: 1 file or folder cannot be opened: lost.png (a link to nowhere.png" in caplog.text


def test_a_folder_without_images_is_refused(tmp_path: Path, tiny_clip_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"generator\.images"):
        build(config(tmp_path / "missing", tiny_clip_folder), "cpu")
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(ValueError, match=r"1 file and no image \(notes.txt\)"):
        build(config(tmp_path, tiny_clip_folder), "cpu")
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"can be read: broken\.png"):
        build(config(tmp_path, tiny_clip_folder), "cpu")


def test_images_like_a_photo_of_val_or_test_are_left_out(
    folder: Path, tiny_clip_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(3)]
    noise[0].resize((70, 70)).point(lambda level: 20 + level // 2).save(folder / "copy.png")
    retrieval = build(config(folder, tiny_clip_folder), "cpu")
    held_out = np.stack([photo_signature(image) for image in noise])
    with caplog.at_level(logging.WARNING):
        kept = retrieval.without_copies(held_out)
    assert [path.stem for path in kept.paths] == ["blue", "green", "red"]
    assert len(kept.features) == len(kept.signatures) == 3
    assert "1 of 4 images" in caplog.text
    assert "copy.png" in caplog.text
    assert retrieval.without_copies(held_out[:0]).paths == retrieval.paths
    with pytest.raises(ValueError, match=r"all of 3 images .* are like photos of val or test \(blue\.png"):
        kept.without_copies(kept.signatures)


def test_gradients_are_refused(folder: Path, tiny_clip_folder: Path) -> None:
    with pytest.raises(ValueError, match="cannot tune"):
        build(config(folder, tiny_clip_folder), "cpu").sample(["a cup"], [1], 1, backprop_steps=1)
