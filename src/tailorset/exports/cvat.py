"""CVAT for images 1.1: a folder per split, `annotations.xml` with tags, and `images/`.

Make a task of `images/` and upload `annotations.xml` to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.sax.saxutils import escape, quoteattr

from tailorset.exports import ExportedImage, ExportedSet
from tailorset.exports.parts.files import write_entries
from tailorset.exports.parts.files import write_files as write_images
from tailorset.records import Split

__all__ = ["place", "write_images", "write_labels"]


def place(image_id: str, split: Split, part: int) -> str:
    """Return the file of an image."""
    return f"{split}/images/{image_id}.png"


def write_labels(folder: Path, exported: ExportedSet) -> None:
    """Write one annotations.xml per split."""
    for split in exported.splits:
        images = enumerate(exported.images(split))
        entries = ("\n".join(_image(number, image)) for number, image in images)
        opening = "\n".join(_opening(exported.labels, split))
        write_entries(folder / split / "annotations.xml", opening, entries, "\n</annotations>\n", separator="\n")


def _opening(labels: tuple[str, ...], split: Split) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="utf-8"?>'
    yield f"<annotations>\n<version>1.1</version>\n<meta><task><name>{split}</name><subset>{split}</subset><labels>"
    for label in labels:
        yield f"<label><name>{escape(label)}</name><type>tag</type><attributes></attributes></label>"
    yield "</labels></task></meta>\n"


def _image(number: int, image: ExportedImage) -> Iterator[str]:
    size = f'width="{image.width}" height="{image.height}"'
    yield f'<image id="{number}" name="{PurePosixPath(image.file).name}" {size}>'
    for label in image.labels:
        yield f'  <tag label={quoteattr(label)} source="auto"></tag>'
    yield "</image>"
