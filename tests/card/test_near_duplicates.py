"""Near-duplicates are found whatever was done to brightness, noise or size; other pictures are not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tailorset.card import near_duplicates
from tailorset.card.near_duplicates import closest_pairs
from tailorset.images.signatures import signature


def picture(seed: int) -> np.ndarray:
    """32 px of 4 x 4 random blocks."""
    blocks = np.random.default_rng(seed).integers(0, 200, (4, 4, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def signatures(*arrays: np.ndarray) -> np.ndarray:
    return np.stack([signature(Image.fromarray(array)) for array in arrays])


def test_a_planted_near_duplicate_is_the_closest_pair() -> None:
    noise = np.random.default_rng(9).normal(0, 8, (32, 32, 3))
    copy = np.clip(picture(3) * 1.2 + 10 + noise, 0, 255).astype(np.uint8)
    pairs = closest_pairs(signatures(*map(picture, range(6)), copy), number=100)
    assert pairs[0][:2] == (3, 6)
    assert pairs[0].similarity > 0.97
    assert pairs[1].similarity < 0.8
    assert len(pairs) == 7 * 6 / 2


def test_size_does_not_matter_and_colour_does() -> None:
    large = np.asarray(Image.fromarray(picture(1)).resize((96, 96), Image.Resampling.NEAREST))
    same, other = closest_pairs(signatures(picture(1), large, picture(1)[..., ::-1]), 3)[::2]
    assert same.similarity > 0.999
    assert other.similarity < 0.8


def test_images_of_one_colour_resemble_nothing_and_few_images_make_no_pair() -> None:
    flat = np.full((32, 32, 3), 7, np.uint8)
    assert closest_pairs(signatures(flat, flat), 1)[0].similarity == 0
    assert closest_pairs(signatures(flat), 1) == []
    assert closest_pairs(np.empty((0, 768)), 1) == []


def test_all_near_pairs_and_the_closest_of_the_rest_are_returned() -> None:
    pictures = signatures(*(picture(seed) for seed in (1, 2, 1, 3, 1, 4)))
    everything = closest_pairs(pictures, 15)
    assert [pair[:2] for pair in everything[:3]] == [(0, 2), (0, 4), (2, 4)]
    assert closest_pairs(pictures, 1) == everything[:1]
    assert closest_pairs(pictures, 1, near=0.999) == everything[:3]
    assert closest_pairs(pictures, 5, near=0.999) == everything[:5]


@pytest.mark.parametrize(("number", "near"), [(1, 0.9), (7, np.inf), (40, 0.5), (10**6, 0)])
def test_pairs_are_the_same_when_few_are_compared_at_once(
    number: int, near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(-3, 4, (41, 3)).astype(np.float64)  # many equal similarities
    at_once = closest_pairs(images, number, near)
    monkeypatch.setattr(near_duplicates, "PAIRS_AT_ONCE", 100)
    assert closest_pairs(images, number, near) == at_once
