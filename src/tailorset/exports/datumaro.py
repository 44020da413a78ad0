"""Datumaro: `annotations/SPLIT.json` with image-level labels, and `images/SPLIT/`.

Read it with `datumaro.Dataset.import_from(FOLDER, "datumaro")`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from tailorset.exports import ExportedImage, ExportedSet
from tailorset.exports.parts.files import as_json, write_entries
from tailorset.exports.parts.files import write_files as write_images
from tailorset.records import Split

__all__ = ["place", "write_images", "write_labels"]
IMAGE_TYPE = 2  # of Datumaro's media


def place(image_id: str, split: Split, part: int) -> str:
    """Return the file of an image."""
    return f"images/{split}/{image_id}.png"


def write_labels(folder: Path, exported: ExportedSet) -> None:
    """Write one file per split."""
    labels = [{"name": label, "parent": "", "attributes": []} for label in exported.labels]
    head = {
        "dm_format_version": "1.0",
        "media_type": IMAGE_TYPE,
        "infos": {},
        "categories": {"label": {"labels": labels, "label_groups": [], "attributes": []}},
    }
    number = {label: index for index, label in enumerate(exported.labels)}
    (folder / "annotations").mkdir(exist_ok=True)
    for split in exported.splits:
        entries = (as_json(_item(image, number)) for image in exported.images(split))
        opening = f'{as_json(head).removesuffix("}")}, "items": [\n'
        write_entries(folder / "annotations" / f"{split}.json", opening, entries, "\n]}\n")


def _item(image: ExportedImage, number: dict[str, int]) -> dict[str, object]:
    kind: dict[str, object] = {"type": "label", "attributes": {}, "group": 0}
    annotations = [kind | {"id": at, "label_id": number[label]} for at, label in enumerate(image.labels)]
    picture = {"path": PurePosixPath(image.file).name, "size": [image.height, image.width]}
    return {"id": image.image_id, "annotations": annotations, "image": picture}
