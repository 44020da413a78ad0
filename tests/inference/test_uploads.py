"""Uploads: what is taken, what is refused with which words, and that refusing costs next to nothing."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path

import mutations
import pytest
from PIL import Image

from tailorset.images.codec import decode_image
from tailorset.inference.uploads import MAX_PIXELS, Refusal, check_upload, file_bytes

TAKEN = (
    "jpeg",
    "progressive",
    "cmyk",
    "grey",
    "png",
    "16 bit",
    "16 bit colour",
    "palette",
    "transparent",
    "animated png",
    "webp",
    "lossless webp",
    "animated webp",
)


def refusal(content: bytes) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        check_upload(content)
    assert "\n" not in caught.value.text
    return caught.value.status, caught.value.text


@pytest.mark.parametrize("kind", TAKEN)
def test_what_cameras_scanners_and_browsers_make_is_taken(kind: str) -> None:
    content = mutations.originals()[kind]
    check_upload(content)
    assert decode_image(content).mode == "RGB"


@pytest.mark.parametrize("kind", sorted(set(mutations.originals()) - set(TAKEN)))
def test_other_kinds_are_refused_by_their_first_bytes(kind: str) -> None:
    assert refusal(mutations.originals()[kind])[0] == 415


def test_empty_and_damaged_files_are_told_apart_from_other_kinds() -> None:
    assert refusal(b"")[0] == 400
    assert refusal(mutations.originals()["png"][:20])[0] == 400
    assert refusal(b"RIFF\0\0\0\0WAVE")[0] == 415


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_size_bomb_is_refused_by_its_header(kind: str) -> None:
    status, text = refusal(mutations.size_bombs()[kind])
    assert status == 413
    assert "too large" in text or "pixels" in text


def test_25_megapixels_are_taken_and_no_more(tmp_path: Path) -> None:
    def png(width: int, height: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("1", (width, height)).save(buffer, "PNG")
        return buffer.getvalue()

    assert MAX_PIXELS == 25_000_000
    check_upload(png(5000, 5000))
    assert refusal(png(5000, 5001)) == (413, "The image has 5000 x 5001 pixels: at most 25 million are decoded.")


@pytest.mark.parametrize("kind", ["text chunks", "data chunks", "segments", "padding", "restarts"])
def test_a_file_of_next_to_nothing_many_times_over_is_refused_at_once(kind: str) -> None:
    content = mutations.floods()[kind]
    start = time.perf_counter()
    assert refusal(content)[0] == 413
    assert time.perf_counter() - start < 1  # Pillow takes minutes


def test_a_jpeg_that_is_drawn_over_and_over_is_refused() -> None:
    assert "scans" in refusal(mutations.scan_bomb(px=64))[1]


def test_what_follows_a_jpeg_is_not_counted(photos: Path) -> None:
    """Phones append a film to the picture."""
    photo = (photos / "turned.jpg").read_bytes()
    check_upload(photo + b"\xff\xda" * 1000)
    assert "scans" in refusal(mutations.scan_bomb(px=64) + b"film")[1]


def test_a_comment_that_unpacks_to_a_lot_is_refused() -> None:
    assert refusal(mutations.text_bomb())[0] == 400


def test_files_come_as_bytes_or_base64() -> None:
    text = base64.b64encode(b"\xff" * 100).decode()
    for form in (b"\xff" * 100, text, f"{text[:50]}\n{text[50:]}", f"data:image/png;base64,{text}"):
        assert file_bytes(form) == b"\xff" * 100
    for wrong in ("é", "not base64!", None, 3):
        with pytest.raises(ValueError, match="send a file's bytes"):
            file_bytes(wrong)
