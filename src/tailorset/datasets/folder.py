"""The user's own photos: a folder of images, and annotations of some of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from tailorset.datasets import DatasetConfig
from tailorset.datasets.reading.annotations import FOLDERS, Annotations, Truth, folder_labels, folder_of, read_truths
from tailorset.datasets.reading.changes import UserPath
from tailorset.datasets.reading.photo_set import Photo, PhotoSet
from tailorset.messages import MAX_CHOICES, count, some
from tailorset.progress import Bar
from tailorset.records import LabelSpace, Split
from tailorset.seeding import sample_seed
from tailorset.storage.checksums import file_digest
from tailorset.storage.photo_files import Found, find_photos

HASHES = 1 << 63
MIN_HELD_OUT = 2  # photos with a label, and without it
MORE = "annotate more photos for every label, fifty at least, or change val_share and test_share"


class Config(DatasetConfig):
    """Photos, their annotations, and their division into splits.

    images: folder of photos, nested or not.
    annotations: a CSV file (`image,labels` or `image` and a column of 1, 0 or nothing for each label), a COCO
        `instances` file (.json), or `folders`: the first folder below `images` names the one label of a photo.
        File names are relative to `images`. Without any, photos are only calibrated on and looked at.
    val_share, test_share: of the photos that are annotated for every label and could be trained on as well.
    image_px: photos are stored with a shorter side of at most this.
    """

    images: UserPath
    annotations: Annotations = None
    val_share: float = Field(default=0.2, gt=0, lt=1)
    test_share: float = Field(default=0.3, gt=0, lt=1)
    image_px: int = Field(default=256, ge=16, le=1024)

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.val_share + self.test_share > 1:
            raise ValueError(f"val_share {self.val_share} and test_share {self.test_share} are more than 1 together")
        return self


def build(config: Config, label_space: LabelSpace, seed: int) -> PhotoSet:
    """Return photos divided by the hashes of their bytes: a new photo moves no other, and copies are left out.

    Photos that show an unseen label, or cannot be trained on, are for val and test; those that are annotated for seen
    labels only are for training.

    Raises:
        ValueError: folder or annotations cannot be read, or name unknown labels or files; too few photos are
            annotated for every label.
    """
    found = find_photos(config.images)
    truths = read_truths(config.annotations, config.images, found, label_space)
    check_truths(truths, config, label_space)
    originals = without_copies(truths, found.photos, config)
    splits: dict[Split, list[Photo]] = {"train": [], "val": [], "test": []}
    for digest, (name, truth) in originals.items():
        split = choose_split(truth, digest, config, label_space, seed)
        labels = label_space.seen if split == "train" else label_space.names
        annotated = [label for label in labels if label in truth]
        shown = frozenset(label for label, present in truth.items() if present)
        if annotated or config.annotations is None:
            splits[split].append(Photo(image_id(name), found.photos[name], shown, annotated))
    check_splits(splits, config, label_space)
    return PhotoSet(splits, config.image_px, _notes(config, found, truths, originals, splits, label_space))


def without_copies(
    truths: Mapping[str, Truth], photos: Mapping[str, Path], config: Config
) -> dict[str, tuple[str, Truth]]:
    """Return {digest: (first name, all that is known)} of distinct files.

    A copy in the folder of another label shows both.

    Raises:
        ValueError: copies of a photo are annotated in contradiction.
    """
    found: dict[str, tuple[str, Truth]] = {}
    for name, truth in Bar(sorted(truths.items()), desc=f"look at {config.images}", unit="photo"):
        digest = _photo_digest(name, photos[name])
        first, known = found.get(digest, (name, {}))
        if config.annotations == FOLDERS:
            truth = {label: max(present, known.get(label, 0)) for label, present in truth.items()}
        elif against := sorted(label for label in known.keys() & truth.keys() if known[label] != truth[label]):
            raise ValueError(f"{first} and {name} are the same photo, but differ in {against}: correct one of them")
        found[digest] = first, {**known, **truth}
    return found


def _photo_digest(name: str, path: Path) -> str:
    """Return the digest of a photo's bytes, or of its name if it is empty or unreadable, which reading it reports."""
    try:
        if path.stat().st_size:
            return file_digest(path)
    except OSError:
        pass
    return hashlib.sha256(name.encode()).hexdigest()


def few_held_out(
    truths: Mapping[str, Truth], config: Config, label_space: LabelSpace, held_out_share: float
) -> list[str]:
    """Return a note on seen labels whose thresholds can hardly be fitted: too few photos are held out for them.

    Thresholds need held-out photos with the label and without it. held_out_share: of the photos that are trained on.
    """
    shares = [(truth, trained_share(truth, config, label_space)) for truth in truths.values()]
    scarce = []
    for name in label_space.seen:
        weights: dict[int, float] = {0: 0.0, 1: 0.0}
        for truth, share in shares:
            if name in truth:
                weights[int(truth[name])] += share
        if (expected := held_out_share * min(weights.values())) < MIN_HELD_OUT:
            scarce.append(f"{name} (about {expected:.1f})")
    if not scarce or config.annotations is None:
        return []
    return [
        f"fit_thresholds needs held-out photos with and without each seen label, at least {MIN_HELD_OUT} of both to be"
        f" sure, and these have fewer of one kind: {some(scarce)}"
    ]


def check_truths(truths: Mapping[str, Truth], config: Config, label_space: LabelSpace) -> None:
    """Check that what is annotated could fill the splits, before a photo is read.

    Raises:
        ValueError: nothing is annotated, or too little for one of the splits.
    """
    if config.annotations is None:
        return
    if not any(truths.values()):
        raise ValueError(
            f"{config.annotations} annotates no photo: write 1 where one shows a label and 0 where it does"
            " not, or set prepare_dataset.annotations to null, which measures nothing"
        )
    showing = [truth for truth in truths.values() if any(truth.get(name) for name in label_space.unseen)]
    num_measured = sum(len(truth) == len(label_space.names) for truth in showing)
    annotated = {label for truth in truths.values() for label in truth}
    if num_measured < 2 and (never := [label for label in label_space.names if label not in annotated]):
        raise ValueError(
            f"{config.annotations} annotates no photo for {some(never)}: annotate them there, give each label the"
            " name or an alias that it has there, or remove it from the label space"
        )
    if num_measured < 2:
        raise ValueError(
            f"photos annotated for every label that show an unseen one: {num_measured}"
            f" ({some(label_space.unseen)}), where val and test need one each: {MORE}"
        )
    spare = [truth for truth in truths.values() if truth not in showing or len(truth) < len(label_space.names)]
    if label_space.seen and not any(truth.keys() & set(label_space.seen) for truth in spare):
        raise ValueError(
            f"no photo is left for train: each one that is annotated for a seen label"
            f" ({some(label_space.seen)}) shows an unseen one: {MORE}"
        )


def check_splits(splits: Mapping[Split, Sequence[Photo]], config: Config, label_space: LabelSpace) -> None:
    """Check that the splits can be learned from and measured on.

    Raises:
        ValueError: a split is empty, or val or test show no unseen label.
    """
    more = MORE if config.annotations else "at least two photos are needed"
    needed: tuple[Split, ...] = ("train", "val", "test") if label_space.seen else ("val", "test")
    if empty := [split for split in needed if not splits[split]]:
        raise ValueError(f"no photo of {config.images} is left for {' and '.join(empty)}: {more}")
    for split in ("val", "test") if config.annotations else ():
        if not any(photo.shown & set(label_space.unseen) for photo in splits[split]):
            raise ValueError(f"no photo for {split} shows an unseen label ({some(label_space.unseen)}): {more}")


def choose_split(truth: Truth, digest: str, config: Config, label_space: LabelSpace, seed: int) -> Split:
    """A photo's split, by a number in [0, 1) that its bytes decide."""
    trained = trained_share(truth, config, label_space)
    if trained == 1:
        return "train"
    number = sample_seed(seed, "folder", digest) / HASHES
    measured = config.val_share + config.test_share
    if trained:
        return "train" if number >= measured else "test" if number < config.test_share else "val"
    return "test" if number < config.test_share / measured else "val"


def trained_share(truth: Truth, config: Config, label_space: LabelSpace) -> float:
    """The share of photos with such annotations for which `choose_split` chooses train."""
    if config.annotations is not None and len(truth) < len(label_space.names):
        return 1
    if not label_space.seen or any(truth.get(name) for name in label_space.unseen):
        return 0
    return 1 - config.val_share - config.test_share


def image_id(name: str) -> str:
    """An id that is safe in a file name, and differs for names that differ."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:60] + "-" + hashlib.sha256(name.encode()).hexdigest()[:12]


def _notes(
    config: Config,
    found: Found,
    truths: Mapping[str, Truth],
    originals: Mapping[str, tuple[str, Truth]],
    splits: Mapping[Split, Sequence[Photo]],
    label_space: LabelSpace,
) -> list[str]:
    """Return notes that account for every file, and the number of photos that show each label in val and test."""
    num_complete = sum(len(truth) == len(label_space.names) for truth in truths.values())
    num_known = sum(bool(truth) for truth in truths.values())
    num_copies = len(truths) - len(originals)
    unused = sum(bool(truth) for _, truth in originals.values()) - sum(map(len, splits.values()))
    notes = [
        f"{config.images}: {count(len(found.photos), 'photo')}, {num_complete:,} annotated for every label,"
        f" {num_known - num_complete:,} for some, {len(found.photos) - num_known:,} not at all",
        ", ".join(f"{split}: {len(photos):,}" for split, photos in splits.items()),
    ]
    if num_copies:
        notes.append(f"left out as copies of others: {count(num_copies, 'file')}")
    if unused > 0:
        notes.append(f"of no use: {count(unused, 'annotated photo')}, as nothing is known of a label they could serve")
    if config.annotations == FOLDERS:
        strange = set(map(folder_of, found.photos)) - {""} - folder_labels(found, label_space).keys()
        notes += [f"folders that are no label: {some(sorted(strange))}"] if strange else []
    if found.unread:
        notes.append(found.unread_note())
    if found.others:
        notes.append(f"left alone: {count(len(found.others), 'other file')}: {some(found.others)}")
    for split in ("val", "test") if num_known else ():
        counts = [f"{name} {sum(name in photo.shown for photo in splits[split])}" for name in label_space.names]
        notes.append(f"{split} shows {some(counts, MAX_CHOICES)}")
    return notes
