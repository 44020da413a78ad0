"""Formats that the data set is exported to: one file each, with the functions of `Format`.

A format that people correct labels in also has `read`, which gives their labels back (`Corrections`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tailorset.records import Source, Split


class ExportedImage(NamedTuple):
    """An image of the export.

    file: the file that holds it, relative to the export. labels, absent: labels that it shows and does not show; any
    other is not annotated. scores: probability in [0, 1] of each label that `scored_by` has scored; predicted: labels
    that it takes for present by these. confidence, judge_confidence: smallest probability of a requested label, by
    discriminator and judge. Photos have no prompt, seed, requested labels and confidences.
    """

    image_id: str
    file: str
    split: Split
    source: Source
    width: int
    height: int
    sha256: str
    labels: list[str]
    absent: list[str]
    scores: dict[str, float]
    predicted: list[str]
    scored_by: str = ""
    prompt_id: str | None = None
    prompt: str | None = None
    seed: str | None = None  # hexadecimal: most programs read numbers as floats, which would lose its last digits
    requested: list[str] | None = None
    confidence: float | None = None
    judge_confidence: float | None = None

    @property
    def annotated(self) -> set[str]:
        """Labels that are known to be present or absent."""
        return {*self.labels, *self.absent}

    @property
    def certainty(self) -> float | None:
        """Probability of the annotation, or prediction where there is none, that fits the scores worst.

        None without scores.
        """
        shown = {label: label in self.predicted for label in self.scores}
        shown |= {**dict.fromkeys(self.absent, False), **dict.fromkeys(self.labels, True)}
        return min((one if shown[label] else 1 - one for label, one in self.scores.items()), default=None)


class ExportedSet(Protocol):
    """Images of an export as their labels are written, streamed from disk each time."""

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of the set."""
        ...

    @property
    def splits(self) -> tuple[Split, ...]:
        """Splits that have images."""
        ...

    def images(self, split: Split | None = None) -> Iterator[ExportedImage]:
        """Yield the images of a split, or all, always in the same order."""
        ...


class Format(Protocol):
    """A format; images are written in parts of one split, and labels when all images are there."""

    place: Callable[[str, Split, int], str]  # (image id, split, number of the part) -> file, relative to the export
    write_images: Callable[[Path, tuple[str, ...], Iterable[tuple[ExportedImage, bytes]]], None]  # folder, labels, part
    write_labels: Callable[[Path, ExportedSet], None]


class Corrections(NamedTuple):
    """Labels as people left them: by the name of each photo, its labels; all others of `classes` are absent.

    classes: None = all labels. notes: lines for the user.
    """

    shown: Mapping[str, list[str]]
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


class Reader(Protocol):
    """A format whose labels can be read back."""

    recognises: Callable[[Path, Any], bool]  # (file, its content)
    read: Callable[[Path, Any], Corrections]
