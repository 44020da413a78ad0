"""Decoding: every kind of file, with any EXIF, and the callers, which all decode in the same way."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mutations import ORIENTATION, TURNED, TYPE_BYTES, exif_photo
from PIL import ExifTags, Image

from tailorset.images.codec import HEIC, container_kind, decode_image, encode_png, read_size, upright_rgb

SHARED = Path(__file__).resolve().parents[3] / "shared"
TINY_COCO, CASES = SHARED / "data" / "tiny_coco", SHARED / "cases"
TAGS = (  # those that cameras, scanners, editors and GeoTIFFs write
    256,
    257,
    258,
    259,
    262,
    269,
    270,
    271,
    272,
    273,
    277,
    278,
    279,
    282,
    283,
    284,
    296,
    301,
    305,
    306,
    315,
    316,
    318,
    319,
    529,
    530,
    531,
    532,
    700,
    33432,
    33434,
    33723,
    34665,
    34675,
    34853,
    36864,
    37121,
    37500,
    40961,
    40965,
)


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def test_png_holds_the_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decode_image(encode_png(image))), image)
    assert encode_png(image) == encode_png(image.copy())
    with pytest.raises(ValueError, match=r"float64.*give uint8"):
        encode_png(image / 255)


def encode_noise(kind: str) -> bytes:
    return saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), format=kind)


def grey_ramp(mode: str) -> Image.Image:
    return Image.fromarray(np.arange(0, 256, dtype=np.uint8).reshape(16, 16)).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_png_mode_becomes_rgb(mode: str) -> None:
    image = decode_image(saved(grey_ramp(mode), format="PNG"))
    assert image.mode == "RGB"
    assert image.size == (16, 16)
    reference = np.asarray(grey_ramp(mode).convert("RGB"), int)
    assert np.abs(np.asarray(image, int) - reference).max() <= 1


def test_cmyk_jpeg_keeps_its_colour() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 30))
    image = decode_image(saved(red.convert("CMYK"), format="JPEG", quality=95))
    assert np.abs(np.asarray(image, int) - (200, 30, 30)).max() < 12


def test_16_bit_grey_keeps_its_range() -> None:
    levels = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for file_format in ("PNG", "TIFF"):
        image = np.asarray(decode_image(saved(Image.fromarray(levels), format=file_format)), int)
        assert np.abs(image[..., 0] - np.arange(256).reshape(16, 16)).max() <= 1


def test_transparent_pixels_are_white() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (255, 0, 0, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    for content in (
        saved(Image.fromarray(rgba), format="PNG"),
        saved(Image.fromarray(rgba), format="WEBP", lossless=True),
    ):
        pixels = np.asarray(decode_image(content))
        assert (pixels[0, 0] == (255, 0, 0)).all()
        assert (pixels[3, 3] == 255).all()
    assert (np.asarray(decode_image(saved(palette, format="PNG", transparency=0))) == 255).all()


@pytest.mark.parametrize("tag", TAGS)
def test_an_entry_of_any_type_leaves_the_orientation_readable(tag: int) -> None:
    """480 combinations of tag and type in all; Pillow's own exif_transpose fails on about 170 of them."""
    sizes = {}
    for kind, num_bytes in TYPE_BYTES.items():
        value = (1).to_bytes(4, "big") * 2 if num_bytes == 8 else (1).to_bytes(num_bytes, "big")
        sizes[kind] = decode_image(exif_photo([TURNED, (tag, kind, value)])).size
    assert sizes == dict.fromkeys(range(1, 13), (48, 64))


@pytest.mark.parametrize(
    "entry", [(2, b"6\0"), (5, bytes(8)), (11, b"\x7f\xc0\0\0"), (3, b"\0\x63"), (13, b"1234"), (7, b"6")]
)
def test_an_orientation_that_means_nothing_turns_nothing(entry: tuple[int, bytes]) -> None:
    assert decode_image(exif_photo([(ORIENTATION, *entry)])).size == (64, 48)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_every_orientation_in_every_format_makes_the_picture_upright(kind: str, turn: int) -> None:
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:24, :32], upright[24:, 32:] = (250, 0, 0), (0, 0, 250)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how to undo a turn: Image.Transpose
    stored = Image.fromarray(upright)
    if turn > 1:
        stored = stored.transpose(Image.Transpose(back[turn]))
    exif = Image.Exif()
    exif[0x0112] = turn
    decoded = np.asarray(decode_image(saved(stored, format=kind, exif=exif, quality=95)), int)
    assert decoded.shape == upright.shape
    assert np.abs(decoded[4:20, 4:28] - (250, 0, 0)).mean() < 20
    assert np.abs(decoded[28:44, 36:60] - (0, 0, 250)).mean() < 20


def test_a_photo_with_a_broken_exif_is_read() -> None:
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"nonsense"):
        assert decode_image(saved(Image.new("RGB", (5, 4)), format="JPEG", exif=exif)).size == (5, 4)


@pytest.mark.skipif(not CASES.is_dir(), reason="the reported case is not here")
def test_the_reported_photo_is_read() -> None:
    assert decode_image((CASES / "odd_exif.jpg").read_bytes()).mode == "RGB"


def test_heic_is_read_where_its_library_is_and_named_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (40, 20), (250, 0, 0))).save(buffer)
    content = buffer.getvalue()
    assert container_kind(content) == HEIC
    image = decode_image(content)
    assert image.size == (40, 20)
    assert np.abs(np.asarray(image, int) - (250, 0, 0)).max() < 12
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"HEIC file, as iPhones take.*pip install pillow-heif.*to JPEG"):
        decode_image(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_size_is_read_from_the_header_alone(kind: str) -> None:
    content = encode_noise(kind)
    assert read_size(content[: len(content) // 2], kind) == (64, 64)
    with pytest.raises(ValueError, match=f"header of a {kind} cannot be read"):
        read_size(b"nothing", kind)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (4000, 2), (33, 17)])
def test_any_size_is_read(size: tuple[int, int]) -> None:
    assert decode_image(saved(Image.new("RGB", size, "teal"), format="PNG")).size == size


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    content = saved(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    assert (np.asarray(decode_image(content))[0, 0] == (255, 0, 0)).all()


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
)
def test_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a readable image.*give a complete file"):
        decode_image(content)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_a_truncated_image_is_refused(file_format: str) -> None:
    content = encode_noise(file_format)
    with pytest.raises(ValueError, match="not a readable image"):
        decode_image(content[: len(content) // 2])


@pytest.mark.skipif(not TINY_COCO.is_dir(), reason="the photos are not here")
def test_real_photos_are_read() -> None:
    paths = sorted(TINY_COCO.rglob("*.jpg"))
    assert paths
    for path in paths[:20]:
        image = decode_image(path.read_bytes())
        assert image.mode == "RGB"
        assert min(image.size) > 32
        assert np.asarray(image).std() > 5


@pytest.mark.parametrize("kind", ["transparent", "16 bit", "turned"])
def test_an_opened_picture_is_the_same_as_its_file(kind: str) -> None:
    if kind == "transparent":
        content = saved(Image.new("RGBA", (8, 16), (0, 0, 0, 0)), format="PNG")
    elif kind == "16 bit":
        content = saved(grey_ramp("I;16"), format="PNG")
    else:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        content = saved(Image.new("RGB", (8, 16), "red"), format="JPEG", exif=exif)
    opened = upright_rgb(Image.open(io.BytesIO(content)))
    assert opened.size == ((16, 8) if kind == "turned" else decode_image(content).size)
    assert np.array_equal(np.asarray(opened), np.asarray(decode_image(content)))
    assert np.array_equal(np.asarray(upright_rgb(opened)), np.asarray(opened))


def test_a_large_photo_is_read_without_a_warning() -> None:
    """Pillow warns above its limit, and refuses above twice as much."""
    png = encode_png(np.zeros((10, 15, 3), np.uint8))
    command = "import sys; from PIL import Image; from tailorset.images.codec import decode_image;"
    command += " Image.MAX_IMAGE_PIXELS = 100; print(decode_image(sys.stdin.buffer.read()).size)"
    done = subprocess.run([sys.executable, "-c", command], input=png, capture_output=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (b"(15, 10)", b"")
