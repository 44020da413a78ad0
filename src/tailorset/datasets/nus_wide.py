"""NUS-WIDE, read from the official files: Flickr tags are seen labels, the 81 concepts of the ground truth unseen ones.

Source: Chua et al. 2009; the 925/81 split of Zhang et al. 2016.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tailorset.datasets.reading.categories import check_categories, labels_of
from tailorset.datasets.reading.changes import UserPath
from tailorset.datasets.reading.photo_set import PhotoSet
from tailorset.datasets.reading.zero_shot import Listed, ProtocolConfig, PublishedCounts, zero_shot_set
from tailorset.messages import count, some
from tailorset.progress import Bar
from tailorset.records import LabelSpace
from tailorset.records.names import plain_path
from tailorset.storage.photo_files import Unread, files_below

CONCEPTS, TAGS, TAG_MATRIX = "Concepts81.txt", "TagList1k.txt", "AllTags1k.txt"
ALL_IMAGES, TRAIN_IMAGES, TEST_IMAGES = "Imagelist.txt", "TrainImagelist.txt", "TestImagelist.txt"
NUM_TRIED = 1000  # images; if none of them is where the lists say, no image is
PUBLISHED = PublishedCounts("161,789", "107,859")


class Config(ProtocolConfig):
    """root: where the official archives were unpacked, whatever their folders are called (ConceptsList, NUS_WID_Tags,
        Groundtruth, ImageList).
    images: the folder that the paths of the image lists are relative to; many of them are no longer on Flickr.

    What is taken: `ProtocolConfig`.
    """

    root: UserPath
    images: UserPath
    num_val: int = Field(default=5000, ge=1)


def build(config: Config, label_space: LabelSpace, seed: int) -> PhotoSet:
    """The three splits of the zero-shot protocol.

    Raises:
        ValueError: a file is missing, there twice, damaged or of another length than the image list, a label is neither
            concept nor tag, images are missing, or a split would be empty.
    """
    files = OfficialFiles(config.root)
    listed = files.lines(ALL_IMAGES)
    shown = shown_labels(files, label_space, len(listed))
    paths = image_paths(config.images, listed)
    images = {line: Listed(path, frozenset(names)) for line, path, names in zip(listed, paths, shown, strict=True)}
    ids = {line: f"nus-{number:06d}" for number, line in enumerate(listed)}
    train, test = (
        {ids[line]: images[line] for line in files.members(part, images)} for part in (TRAIN_IMAGES, TEST_IMAGES)
    )
    is_published = (len(label_space.seen), len(label_space.unseen)) == (925, 81)
    published = PUBLISHED if is_published else None
    unlabelled = sum(not image.shown for image in images.values())
    found = [f"{len(images):,} images are listed; {unlabelled:,} of them show no label and are left out"]
    return zero_shot_set("NUS-WIDE", train, test, label_space, config, seed, published, found)


def image_paths(folder: Path, listed: Sequence[str]) -> list[Path]:
    """Find each listed image; the lists name class folders, which a collection may lack."""
    paths = [folder / plain_path(line) for line in listed]  # written with backslashes
    if any(path.exists() for path in paths[:NUM_TRIED]):
        return paths
    lists = Counter(path.name for path in paths)
    files: dict[str, Path] = {}
    for path in (found for found in files_below(folder) if isinstance(found, Path)):
        if lists[path.name] == 1 and files.setdefault(path.name, path) != path:
            raise ValueError(f"{files[path.name]} and {path} could both be the image of that name: keep one of them")
    return [files.get(path.name, path) for path in paths]


class OfficialFiles:
    """The text files of the official archives, found by their names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        found = list(files_below(root))
        self.paths = sorted(path for path in found if isinstance(path, Path) and path.suffix == ".txt")
        self.unread = [f"{each.path} ({each.reason})" for each in found if isinstance(each, Unread)]

    def path(self, name: str) -> Path:
        found = [path for path in self.paths if path.name == name]
        if len(found) != 1:
            what = "is not" if not found else f"is {len(found)} times"
            unread = f"; cannot be opened: {some(self.unread)}" if self.unread else ""
            raise ValueError(
                f"{name} {what} below {self.root} ({some(found) or 'no such file'}{unread}): unpack the official"
                " archives there once, and set prepare_dataset.root to that folder"
            )
        return found[0]

    def lines(self, name: str) -> list[str]:
        """The lines of a list, without those that are empty.

        Raises:
            ValueError: a line is there twice.
        """
        path = self.path(name)
        try:
            found = [line for text in path.read_text(encoding="utf-8-sig").splitlines() if (line := text.strip())]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not a text file ({error}): unpack it again") from error
        if twice := [line for line, count in Counter(found).items() if count > 1]:
            raise ValueError(f"{path} lists {some(twice)} twice: unpack it again")
        return found

    def members(self, name: str, known: Mapping[str, Listed]) -> list[str]:
        """The lines of an image list, each of them known."""
        found = self.lines(name)
        if strange := [line for line in found if line not in known]:
            raise ValueError(f"{self.path(name)} lists {some(strange)}, which {ALL_IMAGES} does not: unpack both again")
        return found

    def zeros_and_ones(self, name: str, num_rows: int, num_columns: int) -> NDArray[np.bool_]:
        """A file of num_rows lines with num_columns times 0 or 1 each, as (num_rows, num_columns).

        Raises:
            ValueError: the file has another shape or other content.
        """
        path = self.path(name)
        table = np.empty((num_rows, num_columns), dtype=np.uint8)
        number = 0
        with path.open("rb") as file:
            for number, line in enumerate(Bar(_filled(file), desc=name, total=num_rows, leave=False), 1):
                digits = np.frombuffer(line.translate(None, b" \t\r\n"), dtype=np.uint8) - ord("0")
                if number > num_rows or len(digits) != num_columns or digits.max(initial=0) > 1:
                    raise ValueError(
                        f"{path}, line {number}: {num_rows} lines are expected, each with"
                        f" {count(num_columns, 'value')} of 0 or 1: unpack it again"
                    )
                table[number - 1] = digits
        if number < num_rows:
            raise ValueError(f"{path} ends after {number} of {num_rows} lines: unpack it again")
        return table.astype(bool)


def _filled(file: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file without a byte order mark and without the empty ones at its end."""
    num_empty = 0
    for number, raw in enumerate(file):
        line = raw if number else raw.removeprefix(BOM_UTF8)
        if line.strip():
            yield from [b""] * num_empty
            yield line
            num_empty = 0
        else:
            num_empty += 1


def shown_labels(files: OfficialFiles, label_space: LabelSpace, num_images: int) -> Iterator[list[str]]:
    """Yield the labels that each listed image shows: concepts by the ground truth, others by the users' tags."""
    concepts, tags = files.lines(CONCEPTS), files.lines(TAGS)
    offered = dict.fromkeys([*concepts, *tags])
    check_categories(label_space, offered, label_space.names, f"{CONCEPTS} or {TAGS}", "concept or tag")
    label_of = labels_of(label_space, offered)
    shown = np.zeros((num_images, len(label_space.names)), dtype=bool)
    own = {concept: label_of[concept] for concept in concepts if concept in label_of}
    for concept, label in own.items():
        truth = files.zeros_and_ones(f"Labels_{concept}.txt", num_images, 1)
        shown[:, label_space.index(label)] |= truth[:, 0]
    tagged = {tag: label for tag, label in label_of.items() if label not in own.values()}
    if tagged:
        matrix = files.zeros_and_ones(TAG_MATRIX, num_images, len(tags))
        for tag, label in tagged.items():
            shown[:, label_space.index(label)] |= matrix[:, tags.index(tag)]
    return ([label_space.names[column] for column in np.flatnonzero(row)] for row in shown)
