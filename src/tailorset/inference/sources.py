"""Sources of photos: files, folders of files, and shards, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tailorset.storage.shards import CorruptShardError, read_shard

MAX_FILE_BYTES = 256 << 20  # a video among the photos must not fill the memory


class Source(NamedTuple):
    """A photo to be read: its name in the output, and a function that returns its bytes.

    The function raises OSError or ValueError if it cannot be read.
    """

    name: str
    read: Callable[[], bytes]


def image_sources(paths: Iterable[Path], without: Path | None = None) -> Iterator[Source]:
    """Yield every file below the paths, in order and lazily; a `.tar` is a shard, its images one by one.

    Hidden files and folders are left out, and so is the file `without` (where answers are written). Everything else is
    a source; it raises if it is not an image, cannot be opened or ends too early.

    Raises:
        ValueError: a path that does not exist.
    """
    for path in paths:
        if not path.exists():
            raise ValueError(f"There is no {path}: give files, folders or .tar shards.")
        yield from _below(path, os.path.realpath(without) if without else "", seen=frozenset())


def _below(path: Path, without: str, seen: frozenset[str]) -> Iterator[Source]:
    """seen: the real paths of the folders above, for links that lead back up."""
    if path.suffix == ".tar" and os.path.isfile(path):  # os.path: a folder that may not be entered raises nothing
        yield from _shard(path)
    elif not os.path.isdir(path):
        yield Source(_name(path), partial(_content, path))
    elif (real := os.path.realpath(path)) not in seen:
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            yield _failed(_name(path), error)
            return
        for name in names:
            if not name.startswith(".") and os.path.realpath(path / name) != without:
                yield from _below(path / name, without, seen | {real})


def _shard(path: Path) -> Iterator[Source]:
    try:
        for image_id, content in read_shard(path):
            yield Source(f"{_name(path)}/{image_id}", partial(bytes, content))
    except CorruptShardError as error:
        yield _failed(_name(path), error)


def _name(path: Path) -> str:
    """Return a name for a table: it must be UTF-8, which names of files need not be."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _failed(name: str, error: Exception) -> Source:
    def read() -> bytes:
        raise error

    return Source(name, read)


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise ValueError("this is not a regular file")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise ValueError(f"{size >> 20} MiB are too much for a photo: at most {MAX_FILE_BYTES >> 20} are read")
    return path.read_bytes()
