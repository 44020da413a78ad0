"""cleanlab: `pred_probs.npy`, (N, K) float32, and `labels.json` with the N lists of labels and the images' files.

Left out are images without scores, and labels that some of the rest have no score or annotation for. A scored label
that is not annotated in a generated image counts as absent: cleanlab reports it if it is likely to be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tailorset.exports import ExportedImage, ExportedSet
from tailorset.exports.parts.files import as_json, write_entries
from tailorset.exports.parts.files import write_files as write_images
from tailorset.records import Split

__all__ = ["place", "write_images", "write_labels"]


def place(image_id: str, split: Split, part: int) -> str:
    """Return the file of an image."""
    return f"images/{image_id}.png"


def write_labels(folder: Path, exported: ExportedSet) -> None:
    """Write both arrays.

    Raises:
        ValueError: no label is scored in all images with scores, and annotated in all photos among them.
    """
    known, num_images = set(exported.labels), 0
    for image in _scored(exported):
        known &= image.scores.keys()
        if image.source == "real":
            known &= image.annotated
        num_images += 1
    classes = [label for label in exported.labels if label in known]
    if not num_images or not classes:
        raise ValueError(f"{num_images} images have scores, and no label is scored and annotated in all of them")
    header = {"descr": "<f4", "fortran_order": False, "shape": (num_images, len(classes))}
    with (folder / "pred_probs.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for image in _scored(exported):
            file.write(np.array([image.scores[label] for label in classes], "<f4").tobytes())
    files = (as_json(image.file) for image in _scored(exported))
    write_entries(folder / "images.json", "[\n", files, "\n]\n")
    numbers = ([at for at, label in enumerate(classes) if label in image.labels] for image in _scored(exported))
    write_entries(folder / "labels.json", "[\n", map(as_json, numbers), "\n]\n")
    (folder / "classes.json").write_text(f"{as_json(classes)}\n", encoding="utf-8")


def _scored(exported: ExportedSet) -> Iterator[ExportedImage]:
    return (image for image in exported.images() if image.scores and image.annotated)
