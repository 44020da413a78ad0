"""Checksums of a folder's files, as `sha256sum --check SHA256SUMS` reads them: damage is found before it is used."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

SUMS = "SHA256SUMS"
SHA256 = re.compile(r"[0-9a-f]{64}")  # also the name of a large file in the hub's cache
REFIT = "run `dvc repro fit_thresholds` for thresholds of this classifier, or restore the one that had them"
RESTORE = "restore it (`git checkout -- models/foundation`, `dvc checkout`)"


def file_digest(path: Path) -> str:
    """The file's sha256, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stored_digest(path: Path) -> str:
    """The file's sha256; it is the name of a file in the hub's cache, which is not read for it."""
    name = path.resolve().name
    return name if SHA256.fullmatch(name) else file_digest(path)


def digest(*paths: Path) -> str:
    """Return one sha256 of files and folders: of all contents, and of the names of all files and folders."""
    total = hashlib.sha256()
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            total.update(f"{file.relative_to(path.parent).as_posix()}:{file_digest(file)}\n".encode())
    return total.hexdigest()


def seal(folder: Path) -> None:
    """Write the checksums of every file in a folder and below it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS)
    lines = [f"{file_digest(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def bind(folder: Path, note: Path) -> None:
    """Write the fingerprint of a folder, in the format of SHA256SUMS: what is next to it was fitted to its content."""
    note.write_text(f"{_fingerprint(folder)}  {folder.name}\n", encoding="utf-8")


def check_bound(folder: Path, note: Path) -> None:
    """Compare a folder with the one that `bind` noted; without a note there is nothing to compare.

    Raises:
        ValueError: its content is another.
    """
    if note.is_file() and note.read_bytes().decode("utf-8", "replace").partition(" ")[0] != _fingerprint(folder):
        raise ValueError(f"thresholds and novelty next to {folder} were fitted to another classifier ({note}); {REFIT}")


def _fingerprint(folder: Path) -> str:
    return file_digest(folder / SUMS) if (folder / SUMS).is_file() else digest(folder)


def check(folder: Path, remedy: str = "restore the folder") -> None:
    """Compare a folder's files with its checksums; one without checksums has nothing to compare.

    Raises:
        ValueError: a file is missing or altered, or the list of checksums itself is; names the first.
    """
    if not (folder / SUMS).is_file():
        return
    lines = (folder / SUMS).read_bytes().decode("utf-8", "replace").splitlines()
    for line in lines:
        expected, _, name = line.partition("  ")
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} of {folder / SUMS} is missing; {remedy}")
        if file_digest(folder / name) != expected:
            raise ValueError(f"{folder / name} is damaged: it differs from its checksum in {SUMS}; {remedy}")
