"""Augmentations and the annotated objects that they leave visible."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from augmentation import label_of, labelled_photos, main, visible_shares
from PIL import Image

from tailorset.training.contract import Augmentation


@pytest.fixture
def annotated(tmp_path: Path) -> tuple[Path, Path]:
    """Return an `instances` file and its folder: two photos with one small and one large object each."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(2):
        pixels = rng.integers(0, 256, (80, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 160, "height": 80})
        boxes = ([8, 8, 8, 4], [60, 10, 90, 60])
        annotations += [
            {"image_id": number, "category_id": category, "bbox": box} for category, box in enumerate(boxes)
        ]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path, tmp_path


def test_sizes_are_those_that_the_classifier_sees(annotated: tuple[Path, Path]) -> None:
    labelled = labelled_photos(*annotated, image_px=80, limit=10)
    assert [label.size_px for label in labelled] == [4, 60, 4, 60]


def test_an_erased_object_is_not_visible_and_a_mirrored_one_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    labelled = [label_of(pixels, np.array([[30.0, 30.0, 4.0, 4.0]]))] * 40
    assert visible_shares(labelled, Augmentation(flip=True))["all"] == 1
    assert visible_shares(labelled, Augmentation(cutout=1.0))["all"] < 0.5


def test_the_command_prints_every_setting(
    annotated: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["augmentation.py", *map(str, annotated), "--image-px", "80"])
    main()
    printed = capsys.readouterr().out
    assert "4 labels; largest box per label: median 32 px of 80" in printed
    assert "published" in printed


def test_a_folder_without_the_photos_is_named(annotated: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has none of the photos"):
        labelled_photos(annotated[0], tmp_path / "elsewhere", 80, 10)
