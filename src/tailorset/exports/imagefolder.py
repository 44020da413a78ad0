"""Hugging Face `imagefolder`: a folder of pictures per split, and `metadata.parquet` with their labels and origin.

Read it with `datasets.load_dataset(FOLDER)`. A metadata.jsonl has no types: `datasets` refuses a split whose images all
lack a prompt next to one whose images have one.
"""

from __future__ import annotations

from pathlib import Path

from tailorset.exports import ExportedSet
from tailorset.exports.parts.files import write_files as write_images
from tailorset.exports.parts.hub import SPLITS, write_page, write_table
from tailorset.records import Split

__all__ = ["place", "write_images", "write_labels"]


def place(image_id: str, split: Split, part: int) -> str:
    """Return the file of an image."""
    return f"{SPLITS[split]}/{image_id}.png"


def write_labels(folder: Path, exported: ExportedSet) -> None:
    """Write one metadata.parquet per split, and the page."""
    for split in exported.splits:
        write_table(folder / SPLITS[split] / "metadata.parquet", exported.labels, exported.images(split))
    write_page(folder)
