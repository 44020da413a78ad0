"""Plug-ins that supply the real images: annotated for seen labels in train, for all labels in val and test.

A data set is one file here with a `Config` and `build(config, label_space, seed) -> Dataset`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]


class RealSample(NamedTuple):
    """One real image; `image_id` is unique over all splits and safe in a file name.

    targets: 1 present, 0 absent; a label that is not in it is not annotated.
    """

    image_id: str
    png: bytes
    targets: Mapping[str, int]


class Example(NamedTuple):
    """An image to look at, (H, W, 3) uint8, with what it shows."""

    image: NDArray[np.uint8]
    caption: str


class Dataset(Protocol):
    """Real images in three splits that share none of them.

    Rule: train images are annotated for seen labels only; the truth on unseen labels stays in val and test.
    """

    @property
    def sizes(self) -> Mapping[Split, int]:
        """Number of images of each split."""
        ...

    def samples(self, split: Split, start: int = 0) -> Iterator[RealSample]:
        """The samples of a split from number `start` on, always in the same order, made or read one by one."""
        ...

    def sheets(self, num_examples: int) -> Mapping[str, Sequence[Example]]:
        """Sheets of examples for the eye, by name."""
        ...
