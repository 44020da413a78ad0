"""Location of shards: their product's own folder, or any address that fsspec supports (s3://, gs://, az://, file://).

A product whose shards lie elsewhere has a note with the address in place of the folder `shards`: DVC versions the note,
and the sha256 of every image in the manifest beside it tells whether what lies there is still what was written.
An address is a `UPath`, which has the methods of a `Path`, and is annotated as one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from upath import UPath

from tailorset.messages import first_line

NOTE = "shards_at.txt"


def shards_of(product: Path) -> Path:
    """The folder of a product's shards."""
    note = product / NOTE
    return _folder(note.read_text(encoding="utf-8").strip()) if note.exists() else product / "shards"


def place_shards(shards: Path, names: Iterable[str], product: Path) -> None:
    """Copy shards to the folder of a product that is otherwise complete.

    From storage they are not copied: a note in the product says where they are, and its tables are put beside them.
    """
    if isinstance(shards, UPath):
        (product / NOTE).write_text(f"{shards}\n", encoding="utf-8")
        for table in product.glob("*.parquet"):
            with whole_file(shards / table.name) as file:
                shutil.copyfile(table, file)
        return
    (product / "shards").mkdir()
    for name in names:
        shutil.copyfile(shards / name, product / "shards" / name)


def open_storage(address: str) -> Path:
    """Return the folder at an address, after testing that files can be found, written, read and deleted there.

    Raises:
        ValueError: the address cannot be used.
    """
    content = uuid4().hex.encode()
    try:
        folder = _folder(address)
        if not folder.protocol:
            folder.mkdir(parents=True, exist_ok=True)
        answer = _tried(folder / f"tailorset-{content.decode()}", content)
    except Exception as error:  # each store's own library has errors of its own
        raise ValueError(
            f"storage {address!r} cannot be written and read ({first_line(error)}): give the URL of a folder or"
            " bucket that is there, and its credentials as its own tools take them (docs/team.md), or set storage to"
            " null"
        ) from error
    if answer != content:
        raise ValueError(
            f"storage {address!r} returns other bytes than were written: name a store that returns the latest write"
        )
    return folder


def _tried(probe: Any, content: bytes) -> bytes:
    """Write a new file, read it back and delete it."""
    if probe.exists():  # to look for what is not there may be forbidden, too
        raise OSError(f"{probe} is there already")
    probe.write_bytes(content)
    try:
        return probe.read_bytes()
    finally:
        probe.unlink()


def _folder(address: str) -> Any:
    """Return the folder at an address; one on this machine is a plain path, without `file://`."""
    path = UPath(address)
    return UPath(path.path) if path.protocol in ("file", "local") else path


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yield a local path to write to; the file is moved to its target when it is complete."""
    if isinstance(target, UPath) and target.protocol:
        with TemporaryDirectory() as folder:
            local = Path(folder, target.name)
            yield local
            target.fs.put_file(str(local), target.path)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        yield partial
        os.replace(partial, target)
