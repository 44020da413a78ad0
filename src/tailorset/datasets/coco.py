"""MS-COCO, read from the official annotation files: train on what shows no unseen label, test on what shows one.

Source: Lin et al. 2014; the zero-shot protocol of Bansal et al. 2018 (48 seen and 17 unseen of the 80 objects).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tailorset.coco_instances import Image, read_instances
from tailorset.photos import Photo, PhotoSet, drawn, some
from tailorset.records import LabelSpace

OFFICIAL_COUNTS = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}
PUBLISHED_TRAIN, PUBLISHED_TEST = "73,774", "6,608 (Bansal et al.), 2,729 and 6,392 (RAM)"  # of the 48/17 protocol
PROTOCOL_SIZES = (48, 17)


class Config(BaseModel):
    """Where COCO was unpacked, and what is taken from it.

    root: holds `annotations/instances_<part>.json` and the folders `train<year>` and `val<year>` of images.
    train_images: `no_unseen` = that show a seen label and no unseen one; `any_seen` = that show a seen label, whatever
        else, as published: unseen objects are there but not annotated.
    num_val: images for choosing the epoch, cut from train; they may show unseen labels, and are annotated for them.
    test_images: `unseen` = the val images that show an unseen label, as published; `all` = all that show any label.
    missing: what to do about images that an annotation file lists and the folder has not.
    image_px: photographs are stored with a shorter side of at most this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    root: Path
    year: Literal[2014, 2017] = 2014
    train_images: Literal["no_unseen", "any_seen"] = "no_unseen"
    num_val: int = Field(default=4000, ge=1)
    test_images: Literal["unseen", "all"] = "unseen"
    missing: Literal["error", "skip"] = "error"
    image_px: int = Field(default=256, ge=16, le=1024)


def build(config: Config, label_space: LabelSpace, seed: int) -> PhotoSet:
    """The three splits of the zero-shot protocol.

    Raises:
        ValueError: a file is missing, damaged or contradicts itself, a label is no COCO category, images are missing,
            or a split would be empty.
    """
    parts = {part: Part(config, f"{part}{config.year}", label_space) for part in ("train", "val")}
    if twice := sorted(parts["train"].images.keys() & parts["val"].images.keys()):
        raise ValueError(f"images {some(twice)} are in both annotation files of {config.root}: download them again")
    useful = {key: image for key, image in parts["train"].images.items() if image.shown & set(label_space.names)}
    val = drawn(useful, config.num_val, str(seed), "coco", "val")
    chosen = {
        "train": {
            key: image for key, image in useful.items() if key not in val and _trains(image, config, label_space)
        },
        "val": val,
        "test": {key: image for key, image in parts["val"].images.items() if _tests(image, config, label_space)},
    }
    if empty := [split for split, images in chosen.items() if not images]:
        raise ValueError(
            f"no image is left for {empty}: {len(useful)} train images of {config.root} show a label of"
            f" {label_space.name!r}, prepare_dataset.num_val takes {config.num_val} of them"
        )
    splits = {
        "train": parts["train"].photos(chosen["train"], label_space.seen),
        "val": parts["train"].photos(chosen["val"], label_space.names),
        "test": parts["val"].photos(chosen["test"], label_space.names),
    }
    notes = [*parts["train"].notes, *parts["val"].notes, *_counts(parts, chosen, label_space, config)]
    return PhotoSet(splits, config.image_px, notes)  # type: ignore[arg-type]


def _trains(image: Image, config: Config, label_space: LabelSpace) -> bool:
    unseen_is_fine = config.train_images == "any_seen" or not image.shown & set(label_space.unseen)
    return bool(image.shown & set(label_space.seen)) and unseen_is_fine


def _tests(image: Image, config: Config, label_space: LabelSpace) -> bool:
    names = label_space.unseen if config.test_images == "unseen" else label_space.names
    return bool(image.shown & set(names))


class Part:
    """One annotation file and the folder of its images, less the images that are missing and may be."""

    def __init__(self, config: Config, name: str, label_space: LabelSpace) -> None:
        self.folder = config.root / name
        self.path = config.root / "annotations" / f"instances_{name}.json"
        images, categories = read_instances(self.path)
        if unknown := sorted(set(label_space.names) - set(categories)):
            raise ValueError(f"labels {unknown} are no categories of {self.path}: choose from {sorted(categories)}")
        self.notes = [f"{self.path.name}: {len(images):,} images, {_compared(name, len(images))}"]
        self.images = self._present({f"coco-{number:012d}": image for number, image in images.items()}, config.missing)

    def _present(self, images: Mapping[str, Image], missing: str) -> dict[str, Image]:
        try:
            files = set(os.listdir(self.folder))
        except OSError as error:
            raise ValueError(
                f"{self.folder} cannot be read ({error.strerror}): unpack the images of COCO there"
            ) from error
        lost = [image.file_name for image in images.values() if image.file_name not in files]
        if lost and missing == "error":
            raise ValueError(
                f"{len(lost)} of {len(images)} images of {self.path.name} are not in {self.folder}, e.g. {some(lost)}:"
                " unpack them, or set prepare_dataset.missing to skip"
            )
        if lost:
            self.notes.append(f"{self.folder.name}: {len(lost):,} images are missing and left out, e.g. {some(lost)}")
        return {key: image for key, image in images.items() if image.file_name in files}

    def photos(self, images: Mapping[str, Image], annotated: Sequence[str]) -> list[Photo]:
        """The images with their targets, in the order of their ids."""
        return [
            Photo(key, self.folder / image.file_name, {name: int(name in image.shown) for name in annotated})
            for key, image in sorted(images.items())
        ]


def _compared(part: str, count: int) -> str:
    official = OFFICIAL_COUNTS[part]
    return (
        "as in the official file" if count == official else f"NOT the {official:,} of the official file: a part of it"
    )


def _counts(
    parts: Mapping[str, Part], chosen: Mapping[str, Mapping[str, Image]], label_space: LabelSpace, config: Config
) -> list[str]:
    """Every image accounted for, beside the published counts where the labels are the published ones."""
    seen, unseen = set(label_space.seen), set(label_space.unseen)
    train = [image.shown for image in parts["train"].images.values()]
    test = [image.shown for image in parts["val"].images.values()]
    with_seen = [shown for shown in train if shown & seen]
    is_published = (len(seen), len(unseen)) == PROTOCOL_SIZES and config.year == 2014
    beside = (f" (published: {PUBLISHED_TRAIN})", f" (published: {PUBLISHED_TEST})") if is_published else ("", "")
    return [
        f"train part: {len(with_seen):,} of {len(train):,} images show a seen label{beside[0]},"
        f" {sum(not shown & unseen for shown in with_seen):,} of them no unseen one",
        f"val part: {sum(bool(shown & unseen) for shown in test):,} of {len(test):,} images show an unseen label"
        f"{beside[1]}, {sum(bool(shown & (seen | unseen)) for shown in test):,} any label of {label_space.name!r}",
        f"train: {len(chosen['train']):,} ({config.train_images}); val: {len(chosen['val']):,}, cut from the train"
        f" part; test: {len(chosen['test']):,} ({config.test_images})",
    ]
