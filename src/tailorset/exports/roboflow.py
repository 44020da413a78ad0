"""Roboflow's multi-label classification: a folder per split with its pictures and `_classes.csv`, one-hot.

A label that is not annotated is 0, as one that is absent: `images.jsonl` tells them apart.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tailorset.exports import ExportedSet
from tailorset.exports.parts.files import write_entries
from tailorset.exports.parts.files import write_files as write_images
from tailorset.records import Split

__all__ = ["place", "write_images", "write_labels"]
FOLDERS: dict[Split, str] = {"train": "train", "val": "valid", "test": "test"}


def place(image_id: str, split: Split, part: int) -> str:
    """Return the file of an image."""
    return f"{FOLDERS[split]}/{image_id}.png"


def write_labels(folder: Path, exported: ExportedSet) -> None:
    """Write one _classes.csv per split."""
    for split in exported.splits:
        rows = _rows(exported, split)
        write_entries(folder / FOLDERS[split] / "_classes.csv", "", map(_line, rows), "", separator="")


def _rows(exported: ExportedSet, split: Split) -> Iterator[Sequence[object]]:
    yield "filename", *exported.labels
    for image in exported.images(split):
        yield PurePosixPath(image.file).name, *(int(label in image.labels) for label in exported.labels)


def _line(row: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()
