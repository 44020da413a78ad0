"""Hugging Face `imagefolder`: a folder of pictures per split, and `metadata.jsonl` with their labels and origin.

Read it with `datasets.load_dataset(FOLDER)`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from tailorset.exports import ExportedImage, ExportedSet
from tailorset.exports.parts.files import HUB_SPLITS, as_json, write_hub_page, write_lines
from tailorset.exports.parts.files import write_files as write_images
from tailorset.records import Split

__all__ = ["place", "write_images", "write_labels"]


def place(image_id: str, split: Split, part: int) -> str:
    """Return the file of an image."""
    return f"{HUB_SPLITS[split]}/{image_id}.png"


def write_labels(folder: Path, exported: ExportedSet) -> None:
    """Write one metadata.jsonl per split, and the page that names the splits."""
    for split in exported.splits:
        rows = (as_json(_row(image)) for image in exported.images(split))
        write_lines(folder / HUB_SPLITS[split] / "metadata.jsonl", rows)
    write_hub_page(folder, {split: f"{HUB_SPLITS[split]}/**" for split in exported.splits})


def _row(image: ExportedImage) -> dict[str, object]:
    row = image._asdict() | {"file_name": PurePosixPath(image.file).name}
    row["scores"] = [{"label": label, "probability": value} for label, value in image.scores.items()]
    row["requested"] = image.requested or []
    return {key: row[key] for key in ("file_name", *image._fields) if key not in ("file", "split")}
