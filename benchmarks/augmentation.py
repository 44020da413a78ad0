"""Measure how much of the labelled objects each augmentation leaves in annotated photos.

`python benchmarks/augmentation.py ANNOTATIONS FOLDER`: an `instances` file of MS-COCO and the folder of its photos,
such as annotations/instances_val2017.json and val2017. For each label of a photo, the photo is compared with one in
which the boxes of that label are painted over: their difference is the label's trace. Both are augmented alike; a label
stays visible if half of its trace survives. Zooming out costs pixels of the trace and so counts as a loss, though the
object is whole. Labels are grouped by the size of their largest box as the classifier sees it.

Shapes: K pairs of photo and label, P x P pixels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.training.augment import augment
from tailorset.training.contract import Augmentation

SIZES_PX = (0, 16, 32, 64, 10_000)  # limits of the groups: longer side of the largest box
VISIBLE = 0.5  # share of the trace that has to survive
BATCH = 64
SETTINGS = {
    "none": Augmentation(),
    "flip": Augmentation(flip=True),
    "zoom-out to 0.8": Augmentation(zoom_out=0.8),
    "zoom-out to 0.6": Augmentation(zoom_out=0.6),
    "zoom-out to 0.5": Augmentation(zoom_out=0.5),
    "low resolution 0.5": Augmentation(low_resolution=0.5),
    "Cutout 0.1": Augmentation(cutout=0.1),
    "Cutout 0.25": Augmentation(cutout=0.25),
    "Cutout 0.5": Augmentation(cutout=0.5),
    "RandAugment": Augmentation(rand_augment=True),
    "Cutout 0.5, RandAugment (published)": Augmentation(cutout=0.5, rand_augment=True),
}


@dataclass(frozen=True)
class Labelled:
    """A photo as the classifier sees it, with and without the objects of one label.

    whole, without: (3, P, P) uint8. size_px: longer side of the label's largest box.
    """

    whole: Tensor
    without: Tensor
    size_px: float


def labelled_photos(annotations: Path, folder: Path, image_px: int, limit: int) -> list[Labelled]:
    """Return every label of the first `limit` photos that are in the folder.

    Raises:
        ValueError: the folder has none of the photos.
    """
    content = json.loads(annotations.read_text(encoding="utf-8"))
    boxes: dict[int, dict[int, list[Sequence[float]]]] = {}
    for annotation in content["annotations"]:
        boxes.setdefault(annotation["image_id"], {}).setdefault(annotation["category_id"], []).append(
            annotation["bbox"]
        )
    listed = [image for image in content["images"] if (folder / image["file_name"]).exists()][:limit]
    if not listed:
        raise ValueError(f"{folder} has none of the photos that {annotations} lists: name the folder that holds them")
    found = []
    for image in tqdm(listed, desc="photos"):
        with Image.open(folder / image["file_name"]) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((image_px, image_px), Image.Resampling.BICUBIC))
        scale = np.array([image_px / image["width"], image_px / image["height"]] * 2)
        found += [label_of(pixels, np.array(places) * scale) for places in boxes.get(image["id"], {}).values()]
    return found


def label_of(pixels: np.ndarray, boxes: np.ndarray) -> Labelled:
    """Paint the boxes (n, 4: left, top, width, height) over with the photo's mean colour."""
    without = pixels.copy()
    for left, top, width, height in boxes:
        rows = slice(int(top), max(int(top) + 1, round(top + height)))
        columns = slice(int(left), max(int(left) + 1, round(left + width)))
        without[rows, columns] = pixels.mean((0, 1))
    whole, bare = (torch.from_numpy(array.copy()).permute(2, 0, 1) for array in (pixels, without))
    return Labelled(whole, bare, float(boxes[:, 2:].max()))


def traces(labelled: Sequence[Labelled], settings: Augmentation) -> Tensor:
    """Return (K,) the sum of all differences that a label makes in its augmented photo."""
    found = []
    for start in range(0, len(labelled), BATCH):
        part = labelled[start : start + BATCH]
        seeds, same = list(range(start, start + len(part))), [settings] * len(part)
        whole = augment(torch.stack([label.whole for label in part]), seeds, same)
        without = augment(torch.stack([label.without for label in part]), seeds, same)
        found.append((whole - without).abs().sum((1, 2, 3)))
    return torch.cat(found)


def visible_shares(labelled: Sequence[Labelled], settings: Augmentation) -> dict[str, float]:
    """Return the share of labels that stay visible, of each size and of all."""
    kept = traces(labelled, settings) >= VISIBLE * traces(labelled, Augmentation())
    sizes = torch.tensor([label.size_px for label in labelled])
    groups = {
        f"{low} to {high} px" if high < SIZES_PX[-1] else f"from {low} px": (sizes >= low) & (sizes < high)
        for low, high in pairwise(SIZES_PX)
    }
    groups["all"] = torch.ones_like(kept)
    return {name: float(kept[group].float().mean()) for name, group in groups.items() if group.any()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--image-px", type=int, default=224, help="input of the classifier's backbone")
    parser.add_argument("--limit", type=int, default=1000, help="number of photos")
    options = parser.parse_args()
    labelled = labelled_photos(options.annotations, options.folder, options.image_px, options.limit)
    sizes = np.array([label.size_px for label in labelled])
    print(f"{len(labelled)} labels; largest box per label: median {np.median(sizes):.0f} px of {options.image_px},")
    print(", ".join(f"{(sizes < size).mean():.0%} below {size} px" for size in SIZES_PX[1:-1]))
    for name, settings in SETTINGS.items():
        shares = visible_shares(labelled, settings)
        print(f"{name:36}" + "  ".join(f"{group} {share:6.1%}" for group, share in shares.items()))


if __name__ == "__main__":
    main()
