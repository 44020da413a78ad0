"""Annotated images in memory: decoded once, at the size a model looks at.

Letters: N images, L labels, P pixels of a side.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvf
from tqdm import tqdm

from tailorset.records import NOT_ANNOTATED, LabelSpace
from tailorset.seeding import sample_seed
from tailorset.shards import load_images

AnnotatedRows = tuple[pd.DataFrame, Tensor]  # manifest rows and their targets, (N, L)


@dataclass(frozen=True)
class ImageSet:
    """ids: N; images: (N, 3, P, P) uint8; targets: (N, L) int8, 1 present, 0 absent, -1 not annotated."""

    ids: tuple[str, ...]
    images: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.images) == len(self.targets):
            raise ValueError(
                f"{len(self.ids)} ids, {len(self.images)} images and {len(self.targets)} target rows differ"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __add__(self, other: ImageSet) -> ImageSet:
        return ImageSet(
            self.ids + other.ids, torch.cat([self.images, other.images]), torch.cat([self.targets, other.targets])
        )


def repeated(images: ImageSet, times: int) -> ImageSet:
    """The same images `times` over; each copy has an id of its own, and so an augmentation of its own."""
    if times == 1:
        return images  # no second copy in memory
    ids = tuple(f"{image_id}#{copy}" if copy else image_id for copy in range(times) for image_id in images.ids)
    return ImageSet(ids, images.images.repeat(times, 1, 1, 1), images.targets.repeat(times, 1))


def load_image_set(rows: pd.DataFrame, targets: Tensor, folder: Path, image_px: int) -> ImageSet:
    """Decode the images of manifest rows (image_id, shard, sha256) and squash them to a square of `image_px`."""
    total = len(rows)
    images = torch.empty(total, 3, image_px, image_px, dtype=torch.uint8)
    ids = []
    decoded: Iterable[tuple[str, Image.Image]] = load_images(rows, folder)
    for index, (image_id, image) in enumerate(tqdm(decoded, total=total, desc=f"decode {folder}")):
        images[index] = square_pixels(image, image_px)
        ids.append(image_id)
    return ImageSet(tuple(ids), images, targets)


def square_pixels(image: Image.Image, image_px: int) -> Tensor:
    """(3, P, P) uint8: an RGB image squashed to a square, as every model here looks at it."""
    return tvf.resize(tvf.pil_to_tensor(image), [image_px, image_px], InterpolationMode.BICUBIC)


def real_rows(folder: Path, split: str, label_space: LabelSpace) -> AnnotatedRows:
    """Manifest rows of one split and their targets, (N, L) in label-space order."""
    manifest = pd.read_parquet(folder / "manifest.parquet")
    rows = manifest[manifest["split"] == split]
    if rows.empty:
        raise ValueError(f"{folder} has no {split} images: its splits are {sorted(manifest['split'].unique())}")
    table = pd.read_parquet(folder / "targets.parquet").set_index("image_id")
    if missing := sorted(set(label_space.names) - set(table.columns)):
        raise ValueError(f"{folder}/targets.parquet has no column for {missing}: run prepare_dataset again")
    columns = table.loc[rows["image_id"], list(label_space.names)].to_numpy("int8")
    return rows, torch.tensor(columns)


def is_annotated(targets: Tensor) -> bool:
    """Whether anything is known of these images."""
    return bool((targets != NOT_ANNOTATED).any())


def synthetic_rows(manifest: Path, label_space: LabelSpace) -> AnnotatedRows:
    """Kept rows of a filtered manifest, with their prompt_id, and their targets: annotated for unseen labels only."""
    table = pd.read_parquet(manifest)
    rows = table[table["kept"]]
    rows = rows.assign(prompt_id=rows["image_id"].str.rpartition("-")[0])  # image_id = prompt_id-index
    targets = torch.full((len(rows), len(label_space.names)), NOT_ANNOTATED, dtype=torch.int8)
    for name in label_space.unseen:
        present = [name in labels for labels in rows["labels"]]
        targets[:, label_space.index(name)] = torch.tensor(present, dtype=torch.int8)
    return rows, targets


def split_held_out(rows: pd.DataFrame, targets: Tensor, share: float) -> tuple[AnnotatedRows, AnnotatedRows]:
    """What training sees, and what is kept for fitting on its scores: the images of `share` of the prompts or ids.

    The lowest hashes of the prompt ids (of the image ids where there is no prompt), so images drawn from one prompt
    stay together; the run's seed does not matter, so two stages that see the same rows agree. A label that none of
    them shows gets the next one that shows it, if it has two.
    """
    groups = rows["prompt_id"] if "prompt_id" in rows else rows["image_id"]
    ranked = sorted(groups.unique(), key=lambda group: sample_seed("held_out", group))
    chosen = set(ranked[: round(share * len(ranked))])
    for shown in (targets == 1).T.numpy():
        showing = set(groups[shown])
        if len(showing) > 1 and not showing & chosen:
            chosen.add(next(group for group in ranked if group in showing))
    held_out = groups.isin(chosen).to_numpy().copy()  # pandas' own is read-only
    return (rows[~held_out], targets[~held_out]), (rows[held_out], targets[held_out])
