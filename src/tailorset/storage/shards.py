"""Images on disk: WebDataset tar shards whose bytes repeat, read back only if their sha256 still holds.

A product folder (data/real, data/synthetic) holds `shards/*.tar`, one member `<image_id>.png` per image, or the
address where they lie (`storage`), and a manifest whose column `shard` is the file name there.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pandas as pd
from PIL import Image

from tailorset.images.codec import decode_image
from tailorset.storage.checksums import file_digest
from tailorset.storage.location import shards_of, whole_file

_SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,90}")  # no dot: WebDataset ends a key at the first one
_TRAILER = bytes(2 * tarfile.BLOCKSIZE)  # what every complete tar ends with


class CorruptShardError(ValueError):
    """A shard that is not what its manifest says."""

    def __init__(self, path: Path, what: str) -> None:
        self.what = what
        super().__init__(
            f"{path}: {what}. Delete this file and make it again with `dvc repro --force` of the stage that wrote it;"
            " in data/ it can also be restored with `dvc checkout` or `dvc pull`"
        )


def write_shard(path: Path, samples: Iterable[tuple[str, bytes]]) -> str:
    """Write (image_id, PNG bytes) pairs as a tar; equal samples give equal bytes, and no half file remains.

    Returns the sha256 of what was written.

    Raises:
        ValueError: an id is no safe file name.
    """
    with whole_file(path) as file:
        with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
            for image_id, content in samples:
                if not _SAFE_ID.fullmatch(image_id):
                    raise ValueError(
                        f"image id {image_id!r}: use up to 90 letters, digits, '_' or '-'; it names a file"
                    )
                add_member(tar, f"{image_id}.png", content)
        return file_digest(file)


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without an owner and a time, so that equal files give equal bytes."""
    member = tarfile.TarInfo(name)  # mtime, uid and gid are 0
    member.size, member.mode = len(content), 0o644
    tar.addfile(member, io.BytesIO(content))


def read_shard(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (image_id, bytes) in the order written.

    Raises:
        CorruptShardError: the file is missing, truncated or no tar.
    """
    for name, content in read_members(path, is_ours=True):
        yield PurePosixPath(name).stem, content


def read_members(path: Path, is_ours: bool = False) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of the files in a tar; one of ours has no folders, and is padded to whole records.

    Raises:
        CorruptShardError: it is missing, truncated or no tar, or holds links or devices.
    """
    unit = tarfile.RECORDSIZE if is_ours else tarfile.BLOCKSIZE
    try:
        with path.open("rb") as opened, tarfile.open(fileobj=_complete(opened, path, unit), mode="r:") as tar:
            for member in tar:
                if member.isdir() and not is_ours:
                    continue
                file = tar.extractfile(member) if member.isreg() else None  # a link names another file
                if file is None:
                    raise CorruptShardError(path, f"member {member.name!r} is not a file")
                yield member.name, file.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise CorruptShardError(path, f"cannot be read ({error})") from error


def load_images(manifest_rows: pd.DataFrame, folder: str | Path) -> Iterator[tuple[str, Image.Image]]:
    """Yield (image_id, RGB image) for manifest rows; see `load_contents`."""
    for image_id, content in load_contents(manifest_rows, folder):
        yield image_id, decode_image(content)


def load_contents(manifest_rows: pd.DataFrame, folder: str | Path) -> Iterator[tuple[str, bytes]]:
    """Yield (image_id, PNG bytes) for manifest rows in their order; each shard is read once per run of rows.

    manifest_rows: columns image_id, shard, sha256. folder: the product folder.

    Raises:
        CorruptShardError: a shard is damaged, an image is missing or its bytes changed.
    """
    columns = (manifest_rows[name] for name in ("shard", "image_id", "sha256"))
    for shard, rows in groupby(zip(*columns, strict=True), key=lambda row: row[0]):
        path = shards_of(Path(folder)) / shard
        digests = {image_id: digest for _, image_id, digest in rows}
        contents = {name: content for name, content in read_shard(path) if name in digests}
        for image_id, digest in digests.items():
            if image_id not in contents:
                raise CorruptShardError(path, f"image {image_id} of the manifest is missing")
            if sha256(contents[image_id]) != digest:
                raise CorruptShardError(path, f"image {image_id} differs from its sha256 in the manifest")
            yield image_id, contents[image_id]


def load_content(folder: Path, shard: str, image_id: str, digest: str) -> bytes:
    """Return the PNG bytes of one image; the rest of its shard is skipped. digest: its sha256.

    Raises:
        CorruptShardError: the shard is damaged, the image is missing or its bytes changed.
    """
    path = shards_of(folder) / shard
    try:
        with path.open("rb") as opened, tarfile.open(fileobj=opened, mode="r:") as tar:
            file = tar.extractfile(f"{image_id}.png")
            content = file.read() if file else b""
    except (KeyError, OSError, EOFError, tarfile.TarError) as error:
        raise CorruptShardError(path, f"image {image_id} cannot be read ({error})") from error
    if sha256(content) != digest:
        raise CorruptShardError(path, f"image {image_id} differs from its sha256 in the manifest")
    return content


def sha256(content: bytes) -> str:
    """The hexadecimal digest that manifests store."""
    return hashlib.sha256(content).hexdigest()


def _complete(file: BinaryIO, path: Path, unit: int) -> BinaryIO:
    """Check the end of a tar: tarfile reads one that is cut between two members as a shorter tar."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - len(_TRAILER)))
    if size % unit or file.read() != _TRAILER:
        raise CorruptShardError(path, f"is cut off at {size} bytes")
    file.seek(0)
    return file
