"""FiftyOne: a FiftyOneImageClassificationDataset per split, `data/` and `labels.json`, with probabilities.

Read it with `fiftyone.Dataset.from_dir(FOLDER/SPLIT, fiftyone.types.FiftyOneImageClassificationDataset)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tailorset.exports import Corrections, ExportedImage, ExportedSet
from tailorset.exports.parts.files import as_json, write_entries
from tailorset.exports.parts.files import write_files as write_images
from tailorset.records import Split

__all__ = ["place", "read", "recognises", "write_images", "write_labels"]


def place(image_id: str, split: Split, part: int) -> str:
    """Return the file of an image."""
    return f"{split}/data/{image_id}.png"


def write_labels(folder: Path, exported: ExportedSet) -> None:
    """Write one labels.json per split."""
    for split in exported.splits:
        opening = f'{{"classes": {as_json(exported.labels)},\n"labels": {{\n'
        entries = (f"{as_json(image.image_id)}: {as_json(_labels(image))}" for image in exported.images(split))
        write_entries(folder / split / "labels.json", opening, entries, "\n}}\n")


def _labels(image: ExportedImage) -> list[dict[str, object]] | None:
    """Return the labels with their probabilities; None, FiftyOne's "not labelled", for a photo without annotations."""
    if not image.annotated:
        return None
    return [{"label": label} | _confidence(image, label) for label in image.labels]


def _confidence(image: ExportedImage, label: str) -> dict[str, object]:
    return {"confidence": image.scores[label]} if label in image.scores else {}


def recognises(path: Path, content: Any) -> bool:
    """Check for the two keys of a labels.json."""
    return isinstance(content, dict) and isinstance(content.get("labels"), dict) and "classes" in content


def read(path: Path, content: Any) -> Corrections:
    """Read a labels.json, ours or FiftyOne's own; names are those of the photos, without their suffix.

    In FiftyOne a photo with null is not labelled, and one with an empty list shows none of the labels.
    """
    classes = content["classes"] or ()
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"{path}: its `classes` are {classes!r}, not a list of names: export it from FiftyOne again")
    labelled = {name: labels for name, labels in content["labels"].items() if labels is not None}
    shown = {name: list(_names(name, labels, classes)) for name, labels in labelled.items()}
    num_left = len(content["labels"]) - len(labelled)
    notes = (f"pictures left out, as not labelled in FiftyOne: {num_left:,}",) if num_left else ()
    return Corrections(shown, tuple(classes) or None, notes)


def _names(name: str, labels: Any, classes: Any) -> Iterator[str]:
    """Yield the labels of a photo: FiftyOne writes a list or one label, as text, number or with attributes."""
    for label in labels if isinstance(labels, list) else [labels]:
        label = label.get("label") if isinstance(label, dict) else label
        if isinstance(label, int) and classes and 0 <= label < len(classes):
            label = classes[label]
        if not isinstance(label, str):
            raise ValueError(f"the labels of {name!r} are {labels!r}: export them from FiftyOne with their names")
        yield label
