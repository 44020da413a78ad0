"""Photos on disk as a data set: read one by one; those that cannot be read are rejected with the reason.

The data set plug-ins that read other people's files only find out what there is; the reading is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from tailorset.images.codec import decode_image, encode_png, file_content, shrunk
from tailorset.messages import cause_of
from tailorset.records import Example, RealSample, Rejected, Split
from tailorset.seeding import sample_seed

Item = TypeVar("Item")


class Photo(NamedTuple):
    """A file, the labels that it shows, and those that it was annotated for."""

    image_id: str
    path: Path
    shown: frozenset[str]
    annotated: Sequence[str]

    @property
    def targets(self) -> dict[str, int]:
        return {name: int(name in self.shown) for name in self.annotated}


class PhotoSet:
    """A `Dataset` of files, made smaller to `image_px` on their shorter side."""

    def __init__(self, splits: Mapping[Split, Sequence[Photo]], image_px: int, notes: Sequence[str]) -> None:
        self.splits, self.image_px, self.notes = splits, image_px, list(notes)
        self.sizes: Mapping[Split, int] = {split: len(photos) for split, photos in splits.items()}

    def samples(self, split: Split, start: int = 0) -> Iterator[RealSample | Rejected]:
        """The photos of a split; a file that is not a readable image is rejected with the reason."""
        for photo in self.splits[split][start:]:
            try:
                image = shrunk(decode_image(file_content(photo.path)), self.image_px)
            except (OSError, ValueError) as error:
                yield Rejected(photo.image_id, f"{photo.path}: {cause_of(error)}")
            else:
                yield RealSample(photo.image_id, encode_png(np.asarray(image)), photo.targets)

    def sheets(self, num_examples: int) -> Mapping[str, Sequence[Example]]:
        """Some test photos with what they show."""
        readable = (sample for sample in self.samples("test") if isinstance(sample, RealSample))
        examples = [self._example(sample) for sample in islice(readable, num_examples)]
        return {"photos": examples} if examples else {}

    def _example(self, sample: RealSample) -> Example:
        image = decode_image(sample.png)
        image.thumbnail((128, 128))
        shown = [name for name, present in sample.targets.items() if present]
        nothing = "none of the labels" if sample.targets else "not annotated"
        return Example(np.asarray(image), ", ".join(shown) or nothing)


def drawn(items: Mapping[str, Item], count: int, *names: str) -> dict[str, Item]:
    """`count` of the items {id: item} by the lowest hashes of their ids: the same ones wherever they are listed."""
    chosen = set(sorted(items, key=lambda key: sample_seed(*names, key))[:count])
    return {key: item for key, item in items.items() if key in chosen}
