"""Sources of photos: files, folders of files, and shards, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tailorset.images.codec import file_content
from tailorset.storage.shards import CorruptShardError, read_members

METADATA = (".json", ".txt", ".cls")  # beside an image in WebDataset's shards


class Source(NamedTuple):
    """A photo to be read: its name in the output, and a function that returns its bytes.

    The function raises OSError or ValueError if it cannot be read.
    """

    name: str
    read: Callable[[], bytes]


def image_sources(paths: Iterable[Path], without: Path | None = None) -> Iterator[Source]:
    """Yield every file below the paths, in order and lazily; a `.tar` is a shard, its images one by one.

    Hidden files and folders are left out, also in shards, and so is the file `without` (where answers are written).
    Everything else is a source; it raises if it is not an image, cannot be opened or ends too early.

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
        yield Source(_name(path), partial(file_content, path))
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
        for name, content in read_members(path):
            member = PurePosixPath(name)
            if member.suffix not in METADATA and not any(part[0] == "." for part in member.parts):
                yield Source(_name(path / member.with_suffix("")), partial(bytes, content))
    except CorruptShardError as error:
        yield _failed(_name(path), ValueError(f"the shard {error.what}"))


def _name(path: Path) -> str:
    """Return a name for a table: it must be UTF-8, which names of files need not be."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _failed(name: str, error: Exception) -> Source:
    def read() -> bytes:
        raise error

    return Source(name, read)
