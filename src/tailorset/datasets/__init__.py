"""Plug-ins that supply the real images: annotated for seen labels in train, for all labels in val and test.

A data set is one file here with a `Config` (a DatasetConfig) and `build(config, label_space, seed) -> Dataset`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tailorset.messages import Strict
from tailorset.records import Example, RealSample, Rejected, Split


class DatasetConfig(Strict):
    """Base of the settings of every data set."""

    @property
    def needed(self) -> tuple[Path, ...]:
        """Files and folders of fixed names that the data set reads."""
        return ()

    @property
    def annotates_unseen(self) -> bool:
        """True if train images are annotated for unseen labels too, which serves to measure full supervision only."""
        return False


class Dataset(Protocol):
    """Real images in three splits that share none of them.

    Rule: train images are annotated for seen labels only; the truth on unseen labels stays in val and test.
    """

    @property
    def sizes(self) -> Mapping[Split, int]:
        """Number of images of each split, rejected ones included."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Lines for the user before work begins: what was found, what was left out and why."""
        ...

    def samples(self, split: Split, start: int = 0) -> Iterator[RealSample | Rejected]:
        """The samples of a split from number `start` on, always in the same order, made or read one by one."""
        ...

    def sheets(self, num_examples: int) -> Mapping[str, Sequence[Example]]:
        """Sheets of examples for the eye, by name."""
        ...
