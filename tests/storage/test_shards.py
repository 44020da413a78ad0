"""Shards repeat byte for byte, and damage is named."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tailorset.images.codec import encode_png
from tailorset.storage.shards import CorruptShardError, load_images, read_shard, sha256, write_shard

TINY_COCO = Path(__file__).resolve().parents[3] / "shared" / "data" / "tiny_coco"


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
        "nothing left": 0,
        "in a header": 5 * per_image + 100,
        "in an image": 5 * per_image + 600,
        "between images": 10 * per_image,
        "only the end": len(content) - 512,
    }
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
