"""The zero-shot protocol on a data set that comes in a train and a test part, both annotated for every label.

Source: Bansal et al. 2018; Zhang et al. 2024, sec. 4.1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from tailorset.datasets import DatasetConfig
from tailorset.datasets.reading.photo_set import Photo, PhotoSet, drawn
from tailorset.messages import some
from tailorset.records import LabelSpace, Split


class ProtocolConfig(DatasetConfig):
    """Choice of images from the two parts.

    train_images: `no_unseen` = that show a seen label and no unseen one; `any_seen` = that show a seen label, whatever
        else: unseen objects are there but not annotated.
    num_val: images for choosing the epoch, cut from the train part; they may show unseen labels, and are annotated for
        them.
    test_images: `unseen` = the images of the test part that show an unseen label; `all` = those that show any label.
    missing: what to do about images that are listed and not there.
    image_px: photos are stored with a shorter side of at most this.
    """

    train_images: Literal["no_unseen", "any_seen"] = "no_unseen"
    num_val: int = Field(default=4000, ge=1)
    test_images: Literal["unseen", "all"] = "unseen"
    missing: Literal["error", "skip"] = "error"
    image_px: int = Field(default=256, ge=16, le=1024)


class Listed(NamedTuple):
    """An image of a part, and which labels it shows."""

    path: Path
    shown: frozenset[str]


Part = Mapping[str, Listed]  # by image id


class PublishedCounts(NamedTuple):
    """Image counts that papers state for a label space: as text, to show next to ours."""

    train: str
    test: str


def zero_shot_set(
    name: str,
    train: Part,
    test: Part,
    label_space: LabelSpace,
    config: ProtocolConfig,
    seed: int,
    published: PublishedCounts | None,
    found: Sequence[str],
) -> PhotoSet:
    """The three splits, and notes that account for every image, after what the reader has `found`.

    Raises:
        ValueError: an image is in both parts, images are missing and may not be, or a split would be empty.
    """
    if twice := sorted(train.keys() & test.keys()):
        raise ValueError(f"images {some(twice)} of {name} are in both the train and the test part: download it again")
    (train, lost), (test, also_lost) = present(train), present(test)
    missing = _check_missing(name, lost + also_lost, len(train) + len(test), config)
    names = set(label_space.names)
    useful = {key: image for key, image in train.items() if image.shown & names}
    val = drawn(useful, config.num_val, str(seed), name, "val")
    rest = {key: image for key, image in useful.items() if key not in val}
    chosen: dict[Split, Part] = {
        "train": {key: image for key, image in rest.items() if _trains(image, config, label_space)},
        "val": val,
        "test": {key: image for key, image in test.items() if _tests(image, config, label_space)},
    }
    if empty := [split for split, images in chosen.items() if not images]:
        raise ValueError(
            f"no image is left for {' and '.join(empty)}: {len(useful)} images of the train part of {name} show a label"
            f" of {label_space.name!r}, and prepare_dataset.num_val takes {config.num_val} of them"
        )
    notes = [*found, *_counts(train, test, chosen, label_space, config, published), *missing]
    splits = {split: photos(images, split, label_space) for split, images in chosen.items()}
    return PhotoSet(splits, config.image_px, notes)


def present(part: Part) -> tuple[dict[str, Listed], list[Path]]:
    """Return the images whose files exist, and the paths of the others; each folder is listed once."""
    folders = {image.path.parent for image in part.values()}
    files = {
        folder / entry.name for folder in folders if folder.is_dir() for entry in os.scandir(folder) if entry.is_file()
    }
    there = {key: image for key, image in part.items() if image.path in files}
    return there, [image.path for key, image in part.items() if key not in there]


def photos(images: Part, split: Split, label_space: LabelSpace) -> list[Photo]:
    """Return the photos in the order of their ids; those of train are annotated for seen labels only."""
    annotated = label_space.seen if split == "train" else label_space.names
    return [Photo(key, image.path, image.shown, annotated) for key, image in sorted(images.items())]


def _check_missing(name: str, lost: Sequence[Path], num_there: int, config: ProtocolConfig) -> list[str]:
    """Return a note on missing images if they may be missing."""
    if not lost:
        return []
    counted = f"{len(lost):,} of {len(lost) + num_there:,} images of {name} are missing, e.g. {some(lost)}"
    if config.missing == "error":
        raise ValueError(f"{counted}: unpack them there, or set prepare_dataset.missing to skip")
    return [f"{counted}: they are left out"]


def _trains(image: Listed, config: ProtocolConfig, label_space: LabelSpace) -> bool:
    unseen_is_fine = config.train_images == "any_seen" or not image.shown & set(label_space.unseen)
    return bool(image.shown & set(label_space.seen)) and unseen_is_fine


def _tests(image: Listed, config: ProtocolConfig, label_space: LabelSpace) -> bool:
    names = label_space.unseen if config.test_images == "unseen" else label_space.names
    return bool(image.shown & set(names))


def _counts(
    train: Part,
    test: Part,
    chosen: Mapping[Split, Part],
    label_space: LabelSpace,
    config: ProtocolConfig,
    published: PublishedCounts | None,
) -> list[str]:
    """Return notes that account for every image, next to published counts if there are any."""
    seen, unseen = set(label_space.seen), set(label_space.unseen)
    with_seen = [image.shown for image in train.values() if image.shown & seen]
    beside: Sequence[str] = [f" (published: {count})" for count in published] if published else ("", "")
    return [
        f"train part: {len(with_seen):,} of {len(train):,} images show a seen label{beside[0]},"
        f" {sum(not shown & unseen for shown in with_seen):,} of them no unseen one;"
        f" {sum(not image.shown & (seen | unseen) for image in train.values()):,} show no label at all",
        f"test part: {sum(bool(image.shown & unseen) for image in test.values()):,} of {len(test):,} images show an"
        f" unseen label{beside[1]}, {sum(bool(image.shown & (seen | unseen)) for image in test.values()):,} any label",
        f"train: {len(chosen['train']):,} ({config.train_images}); val: {len(chosen['val']):,}, cut from the train"
        f" part; test: {len(chosen['test']):,} ({config.test_images})",
    ]
