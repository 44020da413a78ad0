"""Hugging Face parquet: `image` (Image), `labels` and `absent` (lists of ClassLabel), scores and origin.

Read it with `datasets.load_dataset(FOLDER)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from tailorset.exports import ExportedImage, ExportedSet
from tailorset.exports.parts.hub import SPLITS, HubTable, write_page
from tailorset.records import Split


def place(image_id: str, split: Split, part: int) -> str:
    """Return the file of an image."""
    return f"data/{SPLITS[split]}-{part:05d}.parquet"


def write_images(folder: Path, labels: tuple[str, ...], images: Iterable[tuple[ExportedImage, bytes]]) -> None:
    """Write a file, group by group of rows."""
    images = iter(images)
    first = next(images)
    with HubTable(folder / first[0].file, labels, is_inside=True) as table:
        for image, content in chain([first], images):
            table.add(image, content)


def write_labels(folder: Path, exported: ExportedSet) -> None:
    """Write the page; the labels are in the files already."""
    write_page(folder)
