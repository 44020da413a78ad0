"""WebDataset: tar files of `KEY.png` and `KEY.json`, some for each split.

Read it with `webdataset.WebDataset([...tar files]).decode("pil")`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from tailorset.exports import ExportedImage, ExportedSet
from tailorset.exports.parts.files import as_json
from tailorset.records import Split
from tailorset.storage.shards import add_member


def place(image_id: str, split: Split, part: int) -> str:
    """Return the file of an image."""
    return f"{split}-{part:05d}.tar"


def write_images(folder: Path, labels: tuple[str, ...], images: Iterable[tuple[ExportedImage, bytes]]) -> None:
    """Write a tar file, image by image."""
    images = iter(images)
    first = next(images)
    with tarfile.open(folder / first[0].file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for image, content in chain([first], images):
            add_member(tar, f"{image.image_id}.png", content)
            add_member(tar, f"{image.image_id}.json", as_json(image._asdict()).encode())


def write_labels(folder: Path, exported: ExportedSet) -> None:
    """Write the labels of the set; those of each image are next to it already."""
    (folder / "labels.json").write_text(f"{as_json(exported.labels)}\n", encoding="utf-8")
