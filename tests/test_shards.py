"""Shards repeat byte for byte, and damage is named; files as cameras and web pages deliver them are read."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tailorset.shards import (
    CorruptShardError,
    decode_image,
    encode_png,
    load_images,
    read_shard,
    sha256,
    write_shard,
)

TINY_COCO = Path(__file__).resolve().parents[2] / "shared" / "data" / "tiny_coco"


def pictures(num: int = 4, size_px: int = 8) -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    shape = (size_px, size_px, 3)
    return [(f"img-{k}", encode_png(rng.integers(0, 256, shape, dtype=np.uint8))) for k in range(num)]


def product(folder: Path, num: int = 4) -> pd.DataFrame:
    samples = pictures(num)
    write_shard(folder / "shards" / "a.tar", samples[: num // 2])
    write_shard(folder / "shards" / "b.tar", samples[num // 2 :])
    shards = ["a.tar"] * (num // 2) + ["b.tar"] * (num - num // 2)
    rows = [(name, shard, sha256(png)) for (name, png), shard in zip(samples, shards, strict=True)]
    return pd.DataFrame(rows, columns=["image_id", "shard", "sha256"])


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    write_shard(tmp_path / "one.tar", pictures())
    write_shard(tmp_path / "two.tar", iter(pictures()))
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert list(read_shard(tmp_path / "one.tar")) == pictures()


def test_members_are_named_as_webdataset_wants_them(tmp_path: Path) -> None:
    import tarfile

    write_shard(tmp_path / "one.tar", pictures(2))
    with tarfile.open(tmp_path / "one.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == ["img-0.png", "img-1.png"]
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}


def test_a_failing_writer_leaves_no_shard(tmp_path: Path) -> None:
    def broken():
        yield from pictures(1)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_shard(tmp_path / "one.tar", broken())
    assert not (tmp_path / "one.tar").exists()


@pytest.mark.parametrize("image_id", ["../../x", "/tmp/x", "a/b", "a.b", "", "x" * 91])
def test_ids_are_safe_file_names(tmp_path: Path, image_id: str) -> None:
    with pytest.raises(ValueError, match="use up to 90 letters"):
        write_shard(tmp_path / "one.tar", [(image_id, b"")])
    assert not (tmp_path / "one.tar").exists()


@pytest.mark.parametrize("cut", ["nothing left", "in a header", "in an image", "between images", "only the end"])
def test_a_truncated_shard_is_named(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "one.tar"
    write_shard(path, pictures(40))
    content = path.read_bytes()
    per_image = 1024  # header and padded bytes of one image of this size
    sizes = {
        "nothing left": 0, "in a header": 5 * per_image + 100, "in an image": 5 * per_image + 600,
        "between images": 10 * per_image, "only the end": len(content) - 512,
    }  # fmt: skip
    path.write_bytes(content[: sizes[cut]])
    with pytest.raises(CorruptShardError, match=r"one\.tar.*cut off.*dvc checkout") as error:
        list(read_shard(path))
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize("content", [b"no tar at all " * 2000, bytes(10240 - 1024) + b"x" * 1024])
def test_something_else_is_no_shard(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one.tar").write_bytes(content)
    with pytest.raises(CorruptShardError, match=r"one\.tar"):
        list(read_shard(tmp_path / "one.tar"))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptShardError, match=r"one\.tar: cannot be read.*dvc repro"):
        list(read_shard(tmp_path / "one.tar"))


def test_images_come_in_manifest_order(tmp_path: Path) -> None:
    rows = product(tmp_path)
    wanted = rows.iloc[[3, 2, 0]]
    loaded = list(load_images(wanted, tmp_path))
    assert [name for name, _ in loaded] == ["img-3", "img-2", "img-0"]
    expected = dict(pictures())
    for name, image in loaded:
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(expected[name]))))


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    rows = product(tmp_path)
    path = tmp_path / "shards" / "b.tar"
    content = bytearray(path.read_bytes())
    content[512 + 60] ^= 1  # inside the first image
    path.write_bytes(content)
    with pytest.raises(CorruptShardError, match=r"b\.tar: image img-2 differs.*sha256.*dvc checkout"):
        list(load_images(rows, tmp_path))


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    rows = product(tmp_path)
    rows.loc[1, "image_id"] = "img-9"
    with pytest.raises(CorruptShardError, match=r"a\.tar: image img-9 of the manifest is missing"):
        list(load_images(rows, tmp_path))


def test_png_holds_the_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decode_image(encode_png(image))), image)
    assert encode_png(image) == encode_png(image.copy())
    with pytest.raises(ValueError, match=r"float64.*give uint8"):
        encode_png(image / 255)


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


def test_exif_rotation_is_applied() -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    image = decode_image(saved(Image.fromarray(pixels), format="JPEG", exif=exif, quality=95))
    assert image.size == (8, 16)
    upright = np.asarray(image, int)
    assert upright[1, 4, 0] > 200
    assert upright[14, 4, 0] < 50


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
    with pytest.raises(ValueError, match=r"no readable image.*give a complete file"):
        decode_image(content)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_a_truncated_image_is_refused(file_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), format=file_format)
    with pytest.raises(ValueError, match="no readable image"):
        decode_image(content[: len(content) // 2])


@pytest.mark.skipif(not TINY_COCO.is_dir(), reason="the photographs are not here")
def test_real_photographs_are_read() -> None:
    paths = sorted(TINY_COCO.rglob("*.jpg"))
    assert paths
    for path in paths[:20]:
        image = decode_image(path.read_bytes())
        assert image.mode == "RGB"
        assert min(image.size) > 32
        assert np.asarray(image).std() > 5
