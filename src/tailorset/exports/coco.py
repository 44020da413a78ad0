"""COCO json with image-level labels: annotations without a box, as Datumaro's `coco_labels` and pycocotools read them.

`neg_category_ids` of an image, as LVIS has it: categories that are known to be absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path, PurePosixPath

from tailorset.exports import ExportedImage, ExportedSet
from tailorset.exports.parts.files import as_json, write_entries
from tailorset.exports.parts.files import write_files as write_images
from tailorset.records import Split

__all__ = ["place", "write_images", "write_labels"]


def place(image_id: str, split: Split, part: int) -> str:
    """Return the file of an image."""
    return f"images/{split}/{image_id}.png"


def write_labels(folder: Path, exported: ExportedSet) -> None:
    """Write one labels_SPLIT.json per split."""
    number = {label: at for at, label in enumerate(exported.labels, 1)}
    categories = [{"id": at, "name": label, "supercategory": ""} for label, at in number.items()]
    (folder / "annotations").mkdir(exist_ok=True)
    for split in exported.splits:
        opening = f'{{"info": {{}}, "licenses": [], "categories": {as_json(categories)},\n"images": [\n'
        path = folder / "annotations" / f"labels_{split}.json"
        write_entries(path, opening, _entries(exported, split, number), "\n]}\n", separator="")


def _entries(exported: ExportedSet, split: Split, number: dict[str, int]) -> Iterator[str]:
    """Yield all images, then all annotations."""
    for at, image in enumerate(exported.images(split), 1):
        yield (",\n" if at > 1 else "") + as_json(_image(at, image, number))
    yield '\n],\n"annotations": [\n'
    ids = count(1)
    for at, image in enumerate(exported.images(split), 1):
        for label in image.labels:
            annotation = {"id": next(ids), "image_id": at, "category_id": number[label]}
            yield (",\n" if annotation["id"] > 1 else "") + as_json(annotation)


def _image(at: int, image: ExportedImage, number: dict[str, int]) -> dict[str, object]:
    size = {"width": image.width, "height": image.height}
    absent = [number[label] for label in image.absent]
    return {"id": at, "file_name": PurePosixPath(image.file).name, **size, "neg_category_ids": absent}
