"""The records every stage exchanges: label space, prompt, image manifests.

Shapes: N images, L labels, S seen labels, U unseen labels.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, StrictBool, ValidationError, model_validator

from tailorset.messages import MAX_CHOICES, Strict, invalid, some
from tailorset.records.names import NameFinder, composed, fold, name_problem, wording_problem

PROMPT_COLUMNS = ("prompt_id", "text", "labels", "origin", "attempt")  # of data/prompts/prompts.parquet
IMAGE_COLUMNS = ("shard", "sha256", "width", "height", "pixel_mean", "pixel_std")  # of a manifest of stored images
REAL_COLUMNS = ("image_id", "split", *IMAGE_COLUMNS)  # of data/real/manifest.parquet

# columns of data/synthetic/manifest.parquet; *_logits are (U,) lists in label-space order of the unseen labels
DRAWN_COLUMNS = ("image_id", "prompt_id", "prompt", "labels", "seed", *IMAGE_COLUMNS)
SYNTHETIC_COLUMNS = (*DRAWN_COLUMNS, "discriminator_logits", "judge_logits")

# folder in data/synthetic of images of seen labels, whose manifest has the same columns
NEGATIVES = "negatives"

# further columns of data/synthetic/manifest.parquet where images start from photos: the photo's image_id, the
# correlation of the pixels of both, and True if that makes the image a near-duplicate
COPIES = "copies_photo"
PHOTO_COLUMNS = ("photo_id", "photo_similarity", COPIES)

# columns of data/filtered/manifest.parquet: every candidate, what became of it, and the labels that a person judged
FILTERED_COLUMNS = ("image_id", "shard", "sha256", "prompt", "kept", "labels", "reason", "confidence", "reviewed")

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Source = Literal["real", "synthetic"]  # photo or generated image
Origin = Literal["llm", "retry", "template"]  # of a prompt: a first reply, a later one, or the template
ORIGINS: tuple[Origin, ...] = get_args(Origin)
MIN_UNSEEN = 3  # a pair is scored against at least one further unseen label
MIN_PIXEL_STD = 0.01  # below 2.5 of 255 grey levels an image shows nothing
NOT_ANNOTATED = -1  # in targets.parquet, beside 0 absent and 1 present
AT_QUOTA = "at quota"  # outcome of a label in generate_images' pass_rate.csv


def _name(name: str) -> str:
    if problem := name_problem(name):
        raise ValueError(f"{name!r} is not a label name: it {problem}")
    if name in ("image_id", "method"):
        raise ValueError(f"{name!r} is the name of another column: write the label in another way")
    return composed(name)


def _alias(text: str) -> str:
    if problem := wording_problem(text):
        raise ValueError(f"alias {text!r} {problem}")
    return composed(text)


Name = Annotated[str, AfterValidator(_name)]
Alias = Annotated[str, AfterValidator(_alias)]
Reference = Annotated[str, AfterValidator(composed)]  # to a label, by its name


class Record(Strict):
    """Base of all records."""


class Label(Record):
    """One label: annotated in real images if `seen`, otherwise learned from generated ones."""

    name: Name
    seen: StrictBool
    aliases: tuple[Alias, ...] = ()
    parents: tuple[Reference, ...] = ()


class LabelSpace(Record):
    """The labels of a task in file order, and what is known about them."""

    name: Name
    labels: tuple[Label, ...]
    confusable: frozenset[frozenset[Reference]] = Field(default=frozenset())

    @classmethod
    def load(cls, path: str | Path) -> LabelSpace:
        """Read and check a label space file.

        Raises:
            ValueError: the file is missing, is not a YAML mapping, has a key twice, or contradicts itself.
        """
        from tailorset.records.yaml_files import read_yaml  # a saved classifier holds its labels

        remedy = "correct it, set label_space to another file, or write one by `tailorset new`"
        content = read_yaml(Path(path), "label space", remedy)
        if not isinstance(content, dict):
            raise ValueError(f"label space {path} is {type(content).__name__}, not a mapping with name and labels")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise ValueError(invalid(f"label space {path}", error)) from error

    @model_validator(mode="after")
    def _check(self) -> LabelSpace:
        if problem := next(self._contradictions(), None):
            raise ValueError(problem)
        return self

    def _contradictions(self) -> Iterator[str]:
        seen_of: dict[str, bool] = {}
        for label in self.labels:
            if seen_of.setdefault(label.name, label.seen) != label.seen:
                yield f"label {label.name!r} is both seen and unseen: keep one of the two entries"
        if repeated := sorted(name for name, count in Counter(self.names).items() if count > 1):
            yield f"labels {repeated} are listed more than once: keep one entry each"
        if not self.unseen:
            yield "no label has `seen: false`: name at least one label to generate images for"
        yield from self._unknown_names()
        yield from self._shared_wordings()
        for label in self.labels:
            if label.name in self.parents_of(label.name):
                yield f"label {label.name!r} is its own ancestor: remove one of the parents on the way"

    def _unknown_names(self) -> Iterator[str]:
        for pair in sorted(map(sorted, self.confusable)):
            if len(pair) != 2 or not set(pair) <= self._positions.keys():
                yield f"confusable {pair}: give two different labels out of {some(self.names, MAX_CHOICES)}"
        for label in self.labels:
            if unknown := sorted(set(label.parents) - self._positions.keys()):
                yield f"label {label.name!r} has unknown parents {unknown}: choose from {some(self.names, MAX_CHOICES)}"

    def _shared_wordings(self) -> Iterator[str]:
        """Yield names of different labels that no text and no annotation could tell apart."""
        owners: dict[str, list[tuple[str, str]]] = {}  # folded wording -> (label, wording)
        for label in self.labels:
            for wording in self.wordings(label.name):
                owners.setdefault(fold(wording), []).append((label.name, wording))
        for found in owners.values():
            if len({label for label, _ in found}) > 1:
                listed = " and ".join(f"{wording!r} of label {label!r}" for label, wording in found)
                yield f"{listed} are the same name (case, blanks and hyphens do not count): give each label its own"

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @cached_property
    def seen(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels if label.seen)

    @cached_property
    def unseen(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels if not label.seen)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Position of a label in `names`."""
        if name not in self._positions:
            raise ValueError(f"unknown label {name!r}: choose from {list(self.names)}")
        return self._positions[name]

    def columns(self, names: Sequence[str]) -> list[int]:
        """Positions of labels in `names`, and so in a matrix with one column per label."""
        return [self.index(name) for name in names]

    def prompt_names(self, name: str) -> tuple[str, ...]:
        """The wordings of a label; the first one is used in prompts."""
        return self.labels[self.index(name)].aliases or (name,)

    def wordings(self, name: str) -> tuple[str, ...]:
        """Every name that counts for a label: its own and its aliases."""
        return tuple(dict.fromkeys((name, *self.prompt_names(name))))

    @cached_property
    def label_of_wording(self) -> dict[str, str]:
        return {wording: name for name in self.names for wording in self.wordings(name)}

    def named_in(self, text: str) -> frozenset[str]:
        """The labels that a text names; of names that overlap the longest one counts."""
        return self._finder.named_in(text)

    def may_show(self, text: str) -> frozenset[str]:
        """The unseen labels that an image of a text may show: those it names, their ancestors and their descendants."""
        return frozenset(kin for name in self.named_in(text) for kin in self.unseen_kin[name])

    def without_names(self, text: str, by: str) -> tuple[str, list[str]]:
        """Return the words of a text, folded, with another one for each name of a label; and the labels named."""
        return self._finder.replaced(text, by)

    @cached_property
    def _finder(self) -> NameFinder:
        return NameFinder({name: self.wordings(name) for name in self.names})

    def grown(self, labels: Sequence[Label], confusable: Sequence[Sequence[str]] = ()) -> LabelSpace:
        """Return the label space with further labels behind its own, and further confusable pairs.

        Raises:
            ValueError: they contradict each other or its own.
        """
        values = {"labels": (*self.labels, *labels), "confusable": [*self.confusable, *confusable]}
        try:
            return LabelSpace.model_validate({"name": self.name} | values)
        except ValidationError as error:
            raise ValueError(invalid(f"label space {self.name} with {[one.name for one in labels]}", error)) from None

    def parents_of(self, name: str) -> tuple[str, ...]:
        """All ancestors of a label, nearest first."""
        found: list[str] = []
        waiting = list(self.labels[self.index(name)].parents)
        while waiting:
            parent = waiting.pop(0)
            if parent not in found:
                found.append(parent)
                waiting.extend(self.labels[self.index(parent)].parents)
        return tuple(found)

    @cached_property
    def unseen_kin(self) -> dict[str, frozenset[str]]:
        """The unseen labels that an image of each label may show: it itself, its ancestors and its descendants."""
        line, unseen = {name: {name, *self.parents_of(name)} for name in self.names}, self.unseen
        return {one: frozenset(other for other in unseen if other in line[one] or one in line[other]) for one in line}

    def pairs(self) -> list[tuple[str, ...]]:
        """Labels that are requested together: each unseen label alone, each pair that is not confusable."""
        pairs = combinations_with_replacement(self.unseen, 2)
        return [(a,) if a == b else (a, b) for a, b in pairs if {a, b} not in self.confusable]


class Prompt(Record):
    """One accepted prompt; `origin` says who wrote it, `attempt` in which round of asking (0 for a template)."""

    prompt_id: str
    text: str
    labels: tuple[str, ...] = Field(min_length=1)
    origin: Origin
    attempt: int = Field(ge=0)


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of data/prompts/prompts.parquet, in its order."""
    import pyarrow.parquet as pq

    return [Prompt(**row) for row in pq.read_table(path, columns=list(PROMPT_COLUMNS)).to_pylist()]


class RealSample(NamedTuple):
    """One real image; `image_id` is unique over all splits and safe in a file name.

    targets: 1 present, 0 absent; a label that is not in it is not annotated.
    """

    image_id: str
    png: bytes
    targets: Mapping[str, int]


class Rejected(NamedTuple):
    """An image that cannot be used, with the reason: counted and listed, and in no manifest."""

    image_id: str
    reason: str


class Example(NamedTuple):
    """An image to look at, (H, W, 3) uint8, with what it shows."""

    image: NDArray[np.uint8]
    caption: str


def prompt_id(labels: Sequence[str], index: int) -> str:
    """The id of the index-th prompt for these labels: 16 hexadecimal digits, the same on every machine."""
    return hashlib.sha256(json.dumps([list(labels), index]).encode()).hexdigest()[:16]


def requested_mask(requested: Sequence[Collection[str]], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return (N, L) bool: which of the labels each of N images was asked to show.

    Raises:
        ValueError: an image requests no label, or one that is not among `labels`.
    """
    column = {label: number for number, label in enumerate(labels)}
    mask = np.zeros((len(requested), len(labels)), dtype=bool)
    for row, names in zip(mask, requested, strict=True):
        if not len(names) or not set(names) <= column.keys():
            raise ValueError(f"requested labels {list(names)}: give one or more of {list(labels)}")
        row[[column[name] for name in names]] = True
    return mask
