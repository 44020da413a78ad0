"""Annotations of photos: a CSV file, a COCO `instances` file, or the folders they are in."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tailorset.datasets.reading.categories import check_categories, folded_wordings, labels_of
from tailorset.datasets.reading.changes import UserPath
from tailorset.datasets.reading.coco_instances import read_instances
from tailorset.messages import MAX_NAMED, some, unknown
from tailorset.records import LabelSpace
from tailorset.records.names import composed, fold, plain_path
from tailorset.storage.photo_files import Found

IMAGE, LABELS, SEPARATOR = "image", "labels", ";"  # columns of a CSV file, and the separator of two labels
FOLDERS: Literal["folders"] = "folders"
Annotations: TypeAlias = UserPath | Literal["folders"] | None
Truth: TypeAlias = Mapping[str, int]  # label: 1 present, 0 absent; a label that is not in it is not annotated


def read_truths(annotations: Annotations, folder: Path, found: Found, label_space: LabelSpace) -> dict[str, Truth]:
    """Return the annotations of photos by their names.

    annotations: a CSV file, a COCO `instances` file, `folders`, or None; folder: that of the photos.

    Raises:
        ValueError: the annotations cannot be read, or name unknown labels or photos.
    """
    if annotations is None:
        if label_space.seen:
            raise ValueError(
                f"labels {list(label_space.seen)} of {label_space.name!r} are seen, but no photo is annotated:"
                " name prepare_dataset.annotations, or make them `seen: false`"
            )
        return {name: {} for name in found.photos}
    if annotations == FOLDERS:
        if truths := dict(_truths_of_folders(found, label_space)):
            return truths
        folders = sorted({folder_of(name) for name in found.photos} - {""}) or ["none"]
        raise ValueError(
            f"no folder in {folder} is called like a label ({some(label_space.names)}): its folders are {some(folders)}"
        )
    path = Path(annotations)
    if path.suffix.lower() not in (".csv", ".json"):
        raise ValueError(f"annotations {path}: give a .csv file, a COCO .json file, or the word folders")
    if not path.exists():
        raise ValueError(
            f"there is no file of annotations {path}: set prepare_dataset.annotations to a .csv or COCO .json file that"
            " exists, to folders, or to null (nothing is measured then); `tailorset annotate` makes a .csv file"
        )
    read = _truths_of_csv if path.suffix.lower() == ".csv" else _truths_of_coco
    return _placed(read(path, label_space), found, f"{path} annotates", folder)


def _placed(truths: Mapping[str, Truth], found: Found, who: str, folder: Path) -> dict[str, Truth]:
    """Return the annotations by the names of the photos in the folder."""
    placed: dict[str, Truth] = {}
    lost: list[str] = []
    for written, truth in truths.items():
        name = composed(written) if composed(written) in found.photos else plain_path(written)
        if name not in found.photos:
            lost.append(written)
        elif name in placed:
            raise ValueError(f"{who} {name} twice, once as {written!r}: give each photo one entry")
        placed[name] = truth
    if lost:
        lost.sort()
        traced = [f"{name} ({found.trace(plain_path(name))})" for name in lost[:MAX_NAMED]]
        raise ValueError(
            f"{who} {len(lost)} of {len(truths)} images that are not photos in {folder}:"
            f" {some([*traced, *lost[MAX_NAMED:]])}; file names are relative to that folder"
        )
    return placed


def _truths_of_folders(found: Found, label_space: LabelSpace) -> Iterator[tuple[str, Truth]]:
    label_of = folder_labels(found, label_space)
    for name in found.photos:
        if label := label_of.get(folder_of(name)):
            yield name, {other: int(other == label) for other in label_space.names}


def folder_labels(found: Found, label_space: LabelSpace) -> dict[str, str]:
    """folder -> the label that it is called like, whatever its case, blanks and hyphens."""
    by_fold = folded_wordings(label_space)
    folders = {folder_of(name) for name in found.photos}
    return {
        folder: label_space.label_of_wording[by_fold[fold(folder)]] for folder in folders if fold(folder) in by_fold
    }


def folder_of(name: str) -> str:
    """The first folder of a file's name."""
    return Path(name).parts[0] if len(Path(name).parts) > 1 else ""


def _truths_of_coco(path: Path, label_space: LabelSpace) -> dict[str, Truth]:
    images, categories = read_instances(path)
    check_categories(label_space, categories, label_space.unseen, path)
    categories_of: defaultdict[str, set[str]] = defaultdict(set)
    for category, label in labels_of(label_space, categories).items():
        categories_of[label].add(category)
    truths: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for image in images.values():  # a file may be listed more than once
        truth = truths[image.file_name]
        for label, own in categories_of.items():
            if own & image.shown:
                truth[label] = 1
            elif image.absent is None or own <= image.absent:
                truth.setdefault(label, 0)
    return dict(truths)


def _truths_of_csv(path: Path, label_space: LabelSpace) -> dict[str, Truth]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or ()]
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a readable CSV file in UTF-8 ({error})") from error
    filled = [(line, row) for line, row in rows if any(row.values())]  # spreadsheets end with empty ones
    if IMAGE not in columns or "" in columns or len(columns) < 2 or not filled:
        raise ValueError(
            f"{path} has the columns {columns}: give `image,labels`, or `image` and a column for each annotated label,"
            " with commas between them, and at least one row"
        )
    check_column_names(label_space)
    names = [column for column in columns if column != IMAGE]
    of_columns = names != [LABELS]
    label_of = _known_labels(names, label_space, f"{path}, line 1") if of_columns else {}
    if len(set(columns)) < len(columns) or len(set(label_of.values())) < len(label_of):
        raise ValueError(f"{path} has a column twice: {columns}")
    truths: dict[str, Truth] = {}
    for line, row in filled:
        where = f"{path}, line {line}"
        if None in row or None in row.values():
            raise ValueError(f"{where}: {len(columns)} columns were expected: quote values with a comma")
        name = row[IMAGE]
        if name in truths:
            raise ValueError(f"{where}: {name} is there twice: give each photo one row")
        read = _label_columns(row, label_of, where) if of_columns else _listed_labels(row[LABELS], label_space, where)
        truths[name] = read
    return truths


def check_column_names(label_space: LabelSpace) -> None:
    """Raise ValueError if a label has the name of a column that every CSV file has."""
    if reserved := sorted({IMAGE, LABELS} & set(label_space.names)):
        raise ValueError(f"annotation tables have a column {reserved[0]} of their own: name the label in another way")


def _listed_labels(cell: str, label_space: LabelSpace, where: str) -> Truth:
    """Read a cell of `image,labels`: all labels that the photo shows, with ; between them."""
    shown = _known_labels([part for part in cell.split(SEPARATOR) if part.strip()], label_space, where).values()
    return {name: int(name in shown) for name in label_space.names}


def _label_columns(row: Mapping[str, Any], label_of: Mapping[str, str], where: str) -> Truth:
    """Read a row with one column per label: 1, 0, or nothing where it is not annotated."""
    truth = {}
    for column, label in label_of.items():
        value = row[column].strip()
        if value not in ("0", "1", ""):
            raise ValueError(f"{where}: {label} is {row[column]!r}: write 1, 0, or nothing where it is not annotated")
        if value:
            truth[label] = int(value)
    return truth


def _known_labels(names: Sequence[str], label_space: LabelSpace, where: str) -> dict[str, str]:
    """Return name -> label; each name must be that of a label or an alias."""
    label_of = labels_of(label_space, names)
    for name in names:
        if name not in label_of:
            near = folded_wordings(label_space).get(fold(name))
            hint = f" There is {near!r}." if near else ""
            raise ValueError(f"{where}: {unknown('label', name.strip(), label_space.names)}{hint}")
    return label_of


def annotation_table(truths: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> str:
    """Return CSV text with a row per image and a column per label: 1, 0, or nothing where it is not annotated."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([IMAGE, *labels])
    writer.writerows([name, *(truth.get(label, "") for label in labels)] for name, truth in truths.items())
    return text.getvalue()
