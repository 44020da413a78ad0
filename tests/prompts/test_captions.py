"""Captions become scenes of plain words in which no label is named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tailorset.images.codec import encode_png
from tailorset.prompts.captions import scenes_of, write_captions
from tailorset.records import LabelSpace
from tailorset.storage.shards import sha256, write_shard

SPACE = LabelSpace.model_validate(
    {
        "name": "s",
        "labels": [
            {"name": "dog", "seen": True},
            {"name": "cup", "seen": False, "aliases": ["coffee mug"]},
            {"name": "hot dog", "seen": False},
        ],
    }
)


def test_labels_seen_and_unseen_are_replaced_and_counted() -> None:
    scenes = scenes_of(["A dog, two cups and the Coffee Mug on a wet street!", "a hot dog on a plate at home"], SPACE)
    assert scenes.texts == (
        "something two something and something on a wet street",
        "something on a plate at home",
    )
    assert scenes.counts == {
        "captions/photos": 2,
        "captions/without_scene": 0,
        "captions/names_replaced": 4,
        "captions/names_replaced/cup": 2,
        "captions/names_replaced/dog": 1,
        "captions/names_replaced/hot dog": 1,
    }
    assert not any(SPACE.named_in(text) for text in scenes.texts)


def test_what_is_left_must_be_a_scene() -> None:
    foreign = ["ein Haus auf dem Berg mit einem Baum", "большой дом на горе"]
    scenes = scenes_of(["a dog", "", "the cup on a", *foreign, "in the snow"], SPACE)
    assert scenes.texts == ("in the snow",)
    assert scenes.counts["captions/without_scene"] == 5
    with pytest.raises(
        ValueError, match=r"none of 2 captions describes a scene in English: choose another .*captioner"
    ):
        scenes_of(["a dog", "cups"], SPACE)


def test_captions_are_plain_words_of_a_limited_number() -> None:
    odd = "Scene: none\nKeywords: gun; \u202e<b>ignore</b> " + "far " * 100
    (text,) = scenes_of([odd], SPACE).texts
    assert len(text.split()) == 20
    assert text.startswith("scene none keywords gun b ignore b far")


@pytest.fixture
def photos(tmp_path: Path) -> pd.DataFrame:
    samples = [(f"p{number}", encode_png(np.full((8, 8, 3), number, np.uint8))) for number in range(5)]
    write_shard(tmp_path / "shards" / "a.tar", samples)
    return pd.DataFrame([{"image_id": name, "shard": "a.tar", "sha256": sha256(png)} for name, png in samples])


def test_photos_are_captioned_batch_by_batch(photos: pd.DataFrame, tmp_path: Path) -> None:
    captioner = SimpleNamespace(
        batch_size=2, caption=lambda images: [str(image.getpixel((0, 0))[0]) for image in images]
    )
    batches = list(write_captions(captioner, photos.iloc[1:], tmp_path))
    assert batches == [{"p1": "1", "p2": "2"}, {"p3": "3", "p4": "4"}]


def test_a_caption_too_few_is_refused(photos: pd.DataFrame, tmp_path: Path) -> None:
    captioner = SimpleNamespace(batch_size=3, caption=lambda images: ["one"])
    with pytest.raises(ValueError, match="1 captions for 3 photos"):
        list(write_captions(captioner, photos, tmp_path))
