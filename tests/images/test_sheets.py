"""Contact sheets show every image and a caption that stays inside its own tile."""

from __future__ import annotations

import numpy as np
import pytest

from tailorset.images.sheets import GAP_PX, contact_sheet


def tile(value: int, px: int = 32) -> np.ndarray:
    return np.full((px, px, 3), value, np.uint8)


def test_every_image_stands_enlarged_in_reading_order() -> None:
    sheet = np.asarray(contact_sheet([tile(10), tile(90), tile(170)], ["", "", ""], columns=2, scale=3))
    for value in (10, 90, 170):
        assert (sheet == value).all(axis=2).sum() == (32 * 3) ** 2
    assert (sheet[GAP_PX, GAP_PX] == 10).all()  # first tile: top left; second beside it, third below
    assert np.argwhere((sheet == 90).all(axis=2)).min(axis=0)[0] == GAP_PX
    assert np.argwhere((sheet == 170).all(axis=2)).min(axis=0)[1] == GAP_PX


def test_a_long_caption_wraps_and_stays_in_its_column() -> None:
    caption = "a red clock next to a small blue umbrella with a curved handle in heavy rain"
    sheet = np.asarray(contact_sheet([tile(0), tile(0)], [caption, ""], columns=2))
    short = np.asarray(contact_sheet([tile(0), tile(0)], ["clock", ""], columns=2))
    assert sheet.shape[0] > short.shape[0]
    assert sheet.shape[1] == short.shape[1]
    assert (sheet[GAP_PX + 64 :, sheet.shape[1] // 2 + GAP_PX :] == 255).all()  # nothing under the second tile
    assert (sheet[GAP_PX + 64 :, : sheet.shape[1] // 2] < 128).any()


def test_a_title_stands_above_and_widens_a_narrow_sheet() -> None:
    plain, titled = (contact_sheet([tile(0)], ["x"], columns=1, title=title) for title in ("", "kept images of a run"))
    assert titled.height > plain.height
    assert titled.width > plain.width
    assert (np.asarray(titled)[: GAP_PX + 8] < 128).any()


def test_a_word_wider_than_a_tile_is_never_cut() -> None:
    narrow = contact_sheet([tile(0)], ["word"], columns=1)
    assert contact_sheet([tile(0)], ["w" * 40], columns=1).width > narrow.width


@pytest.mark.parametrize(
    ("images", "captions", "columns", "message"),
    [
        ([], [], 1, "at least one image"),
        ([tile(0)], [], 1, "1 images but 0 captions"),
        ([tile(0)], ["a"], 0, "columns=0"),
        ([tile(0).astype(np.float32)], ["a"], 1, "uint8"),
        ([tile(0)[..., 0]], ["a"], 1, r"\(32, 32\)"),
    ],
)
def test_bad_input_is_named(images: list[np.ndarray], captions: list[str], columns: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contact_sheet(images, captions, columns)
