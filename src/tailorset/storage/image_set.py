"""Annotated images, decoded once at the size a model looks at: in memory, or beyond a GiB in a mapped file.

Shapes: N images, L labels, P pixels of a side.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from tailorset.images.codec import square_pixels
from tailorset.messages import GIB
from tailorset.progress import Bar
from tailorset.records import FILTERED_COLUMNS, NOT_ANNOTATED, LabelSpace, Source
from tailorset.seeding import sample_seed
from tailorset.storage.products import read_table
from tailorset.storage.shards import load_images

IN_MEMORY_BYTES = GIB  # 1,700 images of 448 px; the system keeps of a mapped file what fits its memory

AnnotatedRows = tuple[pd.DataFrame, Tensor]  # manifest rows and their targets, (N, L)


@dataclass(frozen=True)
class ImageSet:
    """ids: N; images: (N, 3, P, P) uint8; targets: (N, L) int8, 1 present, 0 absent, -1 not annotated.

    source: photos or generated images. is_composed: each shows others of the data again, as a mosaic does.
    """

    ids: tuple[str, ...]
    images: Tensor
    targets: Tensor
    source: Source = "real"
    is_composed: bool = False

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.images) == len(self.targets):
            raise ValueError(
                f"{len(self.ids)} ids, {len(self.images)} images and {len(self.targets)} target rows differ"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Source of each image."""
        return (self.source,) * len(self)

    @property
    def copies(self) -> tuple[int, ...]:
        """Number of each image among its copies: 0 for all, as no image is repeated, or 1 for composed ones."""
        return (int(self.is_composed),) * len(self)

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """(B, 3, P, P) uint8 of these images."""
        return self.images[list(indices)]


class Mixture:
    """Several sets as one, each repeated n times, without a copy of their pixels.

    Each repetition of an image has its own id, and so its own augmentation.
    """

    def __init__(self, sets: Sequence[tuple[ImageSet, int]]) -> None:
        self._parts = [images for images, times in sets for _ in range(times)]
        self._ends = list(accumulate(map(len, self._parts)))
        self.ids = tuple(
            f"{image_id}#{copy}" if copy else image_id
            for images, times in sets
            for copy in range(times)
            for image_id in images.ids
        )
        self.copies = tuple(copy + one for images, times in sets for copy in range(times) for one in images.copies)
        self.targets = torch.cat([part.targets for part in self._parts])
        self.sources = tuple(source for part in self._parts for source in part.sources)

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """(B, 3, P, P) uint8 of these images."""
        return torch.stack([self._image(index) for index in indices])

    def _image(self, index: int) -> Tensor:
        part = bisect_right(self._ends, index)
        return self._parts[part].images[index - self._ends[part]]  # from the end of its part


def load_image_set(
    rows: pd.DataFrame, targets: Tensor, folder: Path, image_px: int, source: Source = "real"
) -> ImageSet:
    """Decode the images of manifest rows (image_id, shard, sha256) and squash them to a square of `image_px`.

    Raises:
        ValueError: they would fill the disk of the temporary folder.
    """
    images = empty_pixels((len(rows), 3, image_px, image_px))
    ids = []
    decoded = Bar(load_images(rows, folder), total=len(rows), desc=f"decode {folder}", unit="image")
    for index, (image_id, image) in enumerate(decoded):
        images[index] = square_pixels(image, image_px)
        ids.append(image_id)
    return ImageSet(tuple(ids), images, targets, source)


def empty_pixels(shape: tuple[int, ...]) -> Tensor:
    """An empty uint8 tensor; a large one is kept in a file without a name, which ends with the process.

    Raises:
        ValueError: it would fill the disk of the temporary folder.
    """
    size = math.prod(shape)
    if size <= IN_MEMORY_BYTES:
        return torch.empty(shape, dtype=torch.uint8)
    folder = tempfile.gettempdir()
    if size > (free := shutil.disk_usage(folder).free):
        raise ValueError(
            f"the decoded images take {size / GIB:.1f} GiB and {folder} has {free / GIB:.1f} GiB left: make room, or"
            " set TMPDIR to a folder on a larger disk"
        )
    with tempfile.NamedTemporaryFile(dir=folder, prefix="tailorset-") as file:
        return torch.from_file(file.name, shared=True, size=size, dtype=torch.uint8).view(shape)


def real_rows(folder: Path, split: str, label_space: LabelSpace) -> AnnotatedRows:
    """Manifest rows of one split and their targets, (N, L) in label-space order."""
    manifest = read_table(folder / "manifest.parquet")
    rows = manifest[manifest["split"] == split]
    if rows.empty:
        raise ValueError(f"{folder} has no {split} images: its splits are {sorted(manifest['split'].unique())}")
    table = read_table(folder / "targets.parquet").set_index("image_id")
    if lacking := sorted(set(label_space.names) - set(table.columns)):
        raise ValueError(f"{folder}/targets.parquet has no column for {lacking}: run prepare_dataset again")
    columns = table.loc[rows["image_id"], list(label_space.names)].to_numpy("int8")
    return rows, torch.tensor(columns)


def is_annotated(targets: Tensor) -> bool:
    """True if any target of these images is annotated."""
    return bool((targets != NOT_ANNOTATED).any())


def synthetic_rows(manifest: Path, label_space: LabelSpace) -> AnnotatedRows:
    """Kept rows of a filtered manifest, with their prompt_id, and their targets: annotated for unseen labels only.

    An unseen label that is not among an image's labels is absent, unless `targets_without` says otherwise.

    Raises:
        ValueError: the manifest is missing, or an earlier version wrote it.
    """
    table = read_table(manifest, columns=FILTERED_COLUMNS)
    rows = table[table["kept"]]
    prompt_ids = [image_id.rpartition("-")[0] for image_id in rows["image_id"]]  # image_id = prompt_id-index
    rows = rows.assign(prompt_id=prompt_ids)
    targets = targets_without(rows["prompt"], rows["reviewed"], label_space)
    for target, labels in zip(targets, rows["labels"], strict=True):
        target[label_space.columns(labels)] = 1
    return rows, targets


def targets_without(prompts: Sequence[str], judged: Sequence[Sequence[str]], label_space: LabelSpace) -> Tensor:
    """Return the targets, (N, L), of N images that show no unseen label: each is absent, seen ones are not annotated.

    Nor are those that the text of the image's prompt says it may show, as a prompt for a dog may name a cup as well,
    unless they are among those that a person judged.
    """
    targets = torch.full((len(prompts), len(label_space.names)), NOT_ANNOTATED, dtype=torch.int8)
    targets[:, label_space.columns(label_space.unseen)] = 0
    may_show = {text: label_space.may_show(text) for text in set(prompts)}
    for target, text, known in zip(targets, prompts, judged, strict=True):
        target[label_space.columns(sorted(may_show[text].difference(known)))] = NOT_ANNOTATED
    return targets


def split_held_out(rows: pd.DataFrame, targets: Tensor, share: float) -> tuple[AnnotatedRows, AnnotatedRows]:
    """Split into images for training and those kept for fitting on scores: the images of `share` of the prompts or ids.

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
