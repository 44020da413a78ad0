"""Your own photographs: a folder of images, and what some of them show."""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from tqdm import tqdm

from tailorset.coco_instances import read_instances
from tailorset.inputs import files_below
from tailorset.photos import MAX_NAMED, Photo, PhotoSet, some
from tailorset.plugins import unknown
from tailorset.records import LabelSpace, Split
from tailorset.seeding import sample_seed

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
IMAGE, LABELS, SEPARATOR = "image", "labels", ";"  # columns of a CSV file, and what stands between two labels
Truth = Mapping[str, int]  # label: 1 present, 0 absent; a label that is not in it is not annotated
HASHES = 1 << 63
FOLDERS: Literal["folders"] = "folders"


class Config(BaseModel):
    """Where the photographs are, what they show, and how they are divided.

    images: folder of photographs, nested or not.
    annotations: a CSV file (`image,labels` or `image` and a column of 1, 0 or nothing for each label), a COCO
        `instances` file (.json), or `folders`: the first folder below `images` names the one label of a photograph.
        File names are relative to `images`. Without any, photographs are only calibrated on and looked at.
    val_share, test_share: of the photographs that are annotated for every label and could be trained on as well.
    image_px: photographs are stored with a shorter side of at most this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    images: Path
    annotations: Path | Literal["folders"] | None = None
    val_share: float = Field(default=0.2, gt=0, lt=1)
    test_share: float = Field(default=0.3, gt=0, lt=1)
    image_px: int = Field(default=256, ge=16, le=1024)

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.val_share + self.test_share > 1:
            raise ValueError(f"val_share {self.val_share} and test_share {self.test_share} are more than 1 together")
        return self


class Found(NamedTuple):
    """Files below a folder by their names relative to it."""

    photos: dict[str, Path]
    others: list[str]


def build(config: Config, label_space: LabelSpace, seed: int) -> PhotoSet:
    """Photographs divided by the hashes of their bytes: a new one moves no other, and a copy is left out.

    What shows an unseen label, or cannot be trained on, is for val and test; what is annotated for seen labels only
    is for training.

    Raises:
        ValueError: folder or annotations cannot be read, or name unknown labels or files; too few photographs are
            annotated for every label.
    """
    found = find_photos(config.images)
    truths = read_truths(config, found, label_space)
    originals, num_copies = without_copies(truths, found.photos, config)
    splits: dict[Split, list[Photo]] = {"train": [], "val": [], "test": []}
    for digest, (name, truth) in originals.items():
        split = choose_split(truth, digest, config, label_space, seed)
        labels = label_space.seen if split == "train" else label_space.names
        annotated = [label for label in labels if label in truth]
        shown = frozenset(label for label, present in truth.items() if present)
        if annotated or config.annotations is None:
            splits[split].append(Photo(image_id(name), found.photos[name], shown, annotated))
    check_splits(splits, config, label_space)
    return PhotoSet(splits, config.image_px, _notes(config, found, truths, num_copies, splits, label_space))


def without_copies(
    truths: Mapping[str, Truth], photos: Mapping[str, Path], config: Config
) -> tuple[dict[str, tuple[str, Truth]], int]:
    """{digest: (first name, all that is known)} of files that differ, and the number of files that are copies.

    A copy in the folder of another label shows both.

    Raises:
        ValueError: copies of a photograph are annotated in contradiction.
    """
    found: dict[str, tuple[str, Truth]] = {}
    for name, truth in tqdm(sorted(truths.items()), desc=f"look at {config.images}", unit="photo"):
        try:
            digest = hashlib.sha256(photos[name].read_bytes()).hexdigest()
        except OSError:  # its reason is told when it is read
            digest = hashlib.sha256(name.encode()).hexdigest()
        first, known = found.get(digest, (name, {}))
        if config.annotations == FOLDERS:
            truth = {label: max(present, known.get(label, 0)) for label, present in truth.items()}
        elif against := sorted(label for label in known.keys() & truth.keys() if known[label] != truth[label]):
            raise ValueError(
                f"{first} and {name} are the same photograph, but differ in {against}: correct one of them"
            )
        found[digest] = first, {**known, **truth}
    return found, len(truths) - len(found)


def check_splits(splits: Mapping[Split, Sequence[Photo]], config: Config, label_space: LabelSpace) -> None:
    """Whether the splits can be learned from and measured on.

    Raises:
        ValueError: a split is empty, or val or test show no unseen label.
    """
    more = "annotate more photographs for every label, fifty at least, or change val_share and test_share"
    if config.annotations is None:
        more = "two photographs are the least"
    needed: tuple[Split, ...] = ("train", "val", "test") if label_space.seen else ("val", "test")
    if empty := [split for split in needed if not splits[split]]:
        raise ValueError(f"no photograph of {config.images} is left for {' and '.join(empty)}: {more}")
    for split in ("val", "test") if config.annotations else ():
        if not any(photo.shown & set(label_space.unseen) for photo in splits[split]):
            raise ValueError(
                f"no photograph for {split} shows an unseen label ({', '.join(label_space.unseen)}): {more}"
            )


def find_photos(folder: Path) -> Found:
    """All files below a folder, hidden ones left aside.

    Raises:
        ValueError: no such folder, or no image in it.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: set prepare_dataset.images to the folder of your photographs")
    paths = {normal(path.relative_to(folder).as_posix()): path for path in files_below(folder)}
    if odd := [name for name in paths if not name.isprintable()]:
        raise ValueError(f"names of files must be text in UTF-8: rename {', '.join(map(repr, odd[:MAX_NAMED]))}")
    visible = {name: path for name, path in paths.items() if not any(part[0] == "." for part in Path(name).parts)}
    photos = {name: path for name, path in visible.items() if path.suffix.lower() in SUFFIXES}
    others = [name for name in visible if name not in photos]
    if not photos:
        raise ValueError(
            f"{folder} holds {len(visible)} files and no image ({some(others)}): images end with {', '.join(SUFFIXES)}"
        )
    return Found(photos, others)


def normal(name: str) -> str:
    """One spelling of a name: systems differ in how they compose letters with accents."""
    return unicodedata.normalize("NFC", name)


def read_truths(config: Config, found: Found, label_space: LabelSpace) -> dict[str, Truth]:
    """What annotated photographs show, by their names.

    Raises:
        ValueError: the annotations cannot be read, or name unknown labels or photographs.
    """
    if config.annotations is None:
        if label_space.seen:
            raise ValueError(
                f"labels {list(label_space.seen)} of {label_space.name!r} are seen, but no photograph is annotated:"
                " name prepare_dataset.annotations, or make them `seen: false`"
            )
        return {name: {} for name in found.photos}
    if config.annotations == FOLDERS:
        return dict(_truths_of_folders(found, label_space))
    path = Path(config.annotations).expanduser()
    if path.suffix.lower() not in (".csv", ".json"):
        raise ValueError(f"annotations {path}: give a .csv file, a COCO .json file, or the word folders")
    read = _truths_of_csv if path.suffix.lower() == ".csv" else _truths_of_coco
    truths = read(path, label_space)
    if lost := sorted(truths.keys() - found.photos.keys()):
        raise ValueError(
            f"{path} annotates {len(lost)} of {len(truths)} images that are not in {config.images}: {some(lost)};"
            " file names are relative to that folder"
        )
    return truths


def choose_split(truth: Truth, digest: str, config: Config, label_space: LabelSpace, seed: int) -> Split:
    """A photograph's split, by a number in [0, 1) that its bytes decide."""
    if config.annotations is not None and len(truth) < len(label_space.names):
        return "train"
    number = sample_seed(seed, "folder", digest) / HASHES
    measured = config.val_share + config.test_share
    if label_space.seen and not any(truth.get(name) for name in label_space.unseen):
        return "train" if number >= measured else "test" if number < config.test_share else "val"
    return "test" if number < config.test_share / measured else "val"


def image_id(name: str) -> str:
    """An id that is safe in a file name, and differs for names that differ."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:60] + "-" + hashlib.sha256(name.encode()).hexdigest()[:12]


def _truths_of_folders(found: Found, label_space: LabelSpace) -> Iterator[tuple[str, Truth]]:
    for name in found.photos:
        if (label := folder_of(name)) in label_space.names:
            yield name, {other: int(other == label) for other in label_space.names}


def folder_of(name: str) -> str:
    """The first folder of a file's name, as labels are written."""
    return Path(name).parts[0].lower() if len(Path(name).parts) > 1 else ""


def _truths_of_coco(path: Path, label_space: LabelSpace) -> dict[str, Truth]:
    images, categories = read_instances(path)
    if lacking := [name for name in label_space.unseen if name not in categories]:
        raise ValueError(f"{path} has no category {lacking}: its categories are {some(categories)}")
    labels = [name for name in label_space.names if name in categories]
    shown: dict[str, set[str]] = {}
    for image in images.values():  # a file may be listed more than once
        shown.setdefault(normal(image.file_name), set()).update(image.shown)
    return {name: {label: int(label in found) for label in labels} for name, found in shown.items()}


def _truths_of_csv(path: Path, label_space: LabelSpace) -> dict[str, Truth]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no readable CSV file in UTF-8 ({error})") from error
    filled = [(line, row) for line, row in enumerate(rows, 2) if any(row.values())]  # spreadsheets end with empty ones
    if IMAGE not in columns or len(columns) < 2 or not filled:
        raise ValueError(
            f"{path} has the columns {columns}: give `image,labels`, or `image` and a column for each annotated label,"
            " with commas between them, and at least one row"
        )
    if len(set(columns)) < len(columns):
        raise ValueError(f"{path} has a column twice: {columns}")
    if reserved := sorted({IMAGE, LABELS} & set(label_space.names)):
        raise ValueError(f"a CSV file has a column {reserved[0]} of its own: give the label {reserved[0]} another name")
    names = [column for column in columns if column != IMAGE]
    read = _listed_labels if names == [LABELS] else _label_columns
    truths: dict[str, Truth] = {}
    for line, row in filled:
        name = normal(row[IMAGE])
        if name in truths:
            raise ValueError(f"{path}, line {line}: {name} is there twice: give each photograph one row")
        if None in row or None in row.values():
            raise ValueError(f"{path}, line {line}: {len(columns)} columns were expected: quote values with a comma")
        truths[name] = read(row, names, label_space, f"{path}, line {line}")
    return truths


def _listed_labels(row: Mapping[str, Any], _: Sequence[str], label_space: LabelSpace, where: str) -> Truth:
    """`image,labels`: all labels that the photograph shows, with ; between them; it shows no other one."""
    shown = [word for part in row[LABELS].split(SEPARATOR) if (word := part.strip())]
    for name in shown:
        _check_label(name, label_space, where)
    return {name: int(name in shown) for name in label_space.names}


def _label_columns(row: Mapping[str, Any], names: Sequence[str], label_space: LabelSpace, where: str) -> Truth:
    """`image` and a column a label: 1, 0, or nothing where it is not annotated."""
    truth = {}
    for name in names:
        _check_label(name, label_space, where)
        if row[name].strip() not in ("0", "1", ""):
            raise ValueError(f"{where}: {name} is {row[name]!r}: write 1, 0, or nothing where it is not annotated")
        if row[name].strip():
            truth[name] = int(row[name])
    return truth


def _check_label(name: str, label_space: LabelSpace, where: str) -> None:
    if name not in label_space.names:
        raise ValueError(f"{where}: {unknown('label', name, label_space.names)}")


def _notes(
    config: Config,
    found: Found,
    truths: Mapping[str, Truth],
    num_copies: int,
    splits: Mapping[Split, Sequence[Photo]],
    label_space: LabelSpace,
) -> list[str]:
    """Every file accounted for, and what there is to measure each label by."""
    complete = sum(len(truth) == len(label_space.names) for truth in truths.values())
    known = sum(bool(truth) for truth in truths.values())
    notes = [
        f"{config.images}: {len(found.photos):,} photographs, {complete:,} annotated for every label,"
        f" {known - complete:,} for some, {len(found.photos) - known:,} not at all",
        ", ".join(f"{split}: {len(photos):,}" for split, photos in splits.items()),
    ]
    if num_copies:
        notes.append(f"{num_copies:,} files are copies of others and left out")
    if (left := known - num_copies - sum(map(len, splits.values()))) > 0:
        notes.append(f"{left:,} annotated photographs are of no use: nothing is known of a label they could serve")
    if config.annotations == FOLDERS and (
        strange := sorted({name for photo in found.photos if (name := folder_of(photo)) not in label_space.names})
    ):
        notes.append(f"folders that are no label: {some(strange)}")
    if found.others:
        notes.append(f"{len(found.others):,} other files are left alone: {some(found.others)}")
    for split in ("val", "test") if known else ():
        counts = {name: sum(name in photo.shown for photo in splits[split]) for name in label_space.names}
        notes.append(f"{split} shows " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return notes
