"""Files of an export, written entry by entry: a set of any size fits the memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tailorset.exports import ExportedImage
from tailorset.storage.files import atomic_output


def write_files(folder: Path, labels: tuple[str, ...], images: Iterable[tuple[ExportedImage, bytes]]) -> None:
    """Write each image to a file of its own."""
    for image, content in images:
        path = folder / image.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def as_json(value: object) -> str:
    """Return JSON on one line, with every character as it is."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_entries(path: Path, opening: str, entries: Iterable[str], closing: str, separator: str = ",\n") -> None:
    """Write a text file of entries between an opening and a closing."""
    with atomic_output(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.write(opening)
        for number, entry in enumerate(entries):
            file.write(f"{separator}{entry}" if number else entry)
        file.write(closing)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file of lines."""
    write_entries(path, "", (f"{line}\n" for line in lines), "", separator="")
