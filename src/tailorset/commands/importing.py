"""Labels that people corrected in another program, read back as annotations of the data set `folder`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tailorset.commands.formats import readers
from tailorset.datasets.reading.annotations import annotation_table, check_column_names
from tailorset.datasets.reading.categories import check_categories, labels_of
from tailorset.exports import Corrections
from tailorset.messages import count, first_line, invalid, some, unknown
from tailorset.records import LabelSpace
from tailorset.records.names import composed
from tailorset.storage.files import atomic_output
from tailorset.storage.photo_files import find_photos

NAMES = ("labels.json", "tasks.json")  # looked for in a folder
ORIGIN = "images.jsonl"  # in our exports: labels that were annotated, image by image
NOTHING_KNOWN = f"no {ORIGIN} of an export here: labels that are not ticked count as absent (--images DIR finds one)"
KNOWN = "FiftyOne's labels.json, or Label Studio's export in the form JSON"

UPLOAD_PREFIX = re.compile("^[0-9a-f]{8}-")  # of files that were uploaded to Label Studio

Truths = dict[str, dict[str, int]]  # file, relative to the folder of the pictures -> label -> 1 present, 0 absent


def import_labels(source: Path, output: Path, images: Path | None, space: LabelSpace) -> list[str]:
    """Write the table of annotations; return lines for the user.

    Raises:
        ValueError: the file is of no known kind, names unknown labels or pictures, or the table exists.
    """
    if output.exists():
        raise ValueError(f"{output} exists, and nothing is overwritten: remove it, or choose another --output")
    if output.suffix != ".csv":
        raise ValueError(f"{output} is not a .csv file, which the data set `folder` reads")
    check_column_names(space)
    paths = _files_in(source)
    pictures = images or (source if source.is_dir() else source.parent)
    truths, notes = _read(paths, images, pictures, space)
    num_labels = sum(sum(truth.values()) for truth in truths.values())
    with atomic_output(output) as partial:
        partial.write_text(annotation_table(truths, space.names), encoding="utf-8", newline="")
    block = {"name": "folder", "images": str(pictures), "annotations": str(output)}
    line = yaml.safe_dump(block, default_flow_style=True, sort_keys=False, width=math.inf).strip()
    return [
        f"Read:    {some(paths)}: {count(len(truths), 'image')}, {count(num_labels, 'label')}",
        *(f"         {note}" for note in notes),
        f"Written: {output}",
        f"Next:    prepare_dataset in params.yaml, beside shard_size: {line}",
        "         and `seen: true` for labels that people have now annotated in train",
    ]


def _read(paths: list[Path], images: Path | None, pictures: Path, space: LabelSpace) -> tuple[Truths, list[str]]:
    """Return the annotations by picture, relative to the folder `pictures`, and notes for the user.

    images: the folder of all pictures; None = each file's own.
    """
    truths: Truths = {}
    notes: dict[str, None] = {}  # each once
    for path in paths:
        corrections = _corrections(path)
        folder = images or path.parent
        known = _annotated_before(folder, path)
        for name, truth in _truths(corrections, known, path, folder, space):
            file = (folder / name).relative_to(pictures).as_posix()
            if truths.setdefault(file, truth) != truth:
                raise ValueError(f"{path} has {file} twice, with other labels: delete one of them")
        notes |= dict.fromkeys(corrections.notes if known else (*corrections.notes, NOTHING_KNOWN))
    if not truths:
        raise ValueError(f"{some(paths)}: no picture has labels there; name {KNOWN}")
    return truths, list(notes)


def _files_in(source: Path) -> list[Path]:
    """Return the file itself, the one in a folder that has labels, or those of its splits."""
    if source.is_file():
        return [source]
    if not source.exists():
        raise ValueError(f"there is no {source}: name {KNOWN}, or a folder with it")
    found = [path for name in NAMES if (path := source / name).is_file()]
    if len(found) > 1 or not (found := found or sorted(source.glob("*/labels.json"))):
        number = "several" if found else "none"
        raise ValueError(f"the folder {source} has {number} of {', '.join(NAMES)}: name the file, {KNOWN}")
    return found


def _corrections(path: Path) -> Corrections:
    """Read a file by the format that recognises it.

    Raises:
        ValueError: it is not JSON, or none does.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable JSON file ({error}): name {KNOWN}") from error
    for reader in readers():
        if reader.recognises(path, content):
            try:
                return reader.read(path, content)
            except ValidationError as error:
                raise ValueError(invalid(path, error)) from error
    raise ValueError(f"{path} has labels of no known kind: name {KNOWN}")


def _truths(
    corrections: Corrections, known: Mapping[str, set[str]], path: Path, folder: Path, space: LabelSpace
) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the name of each picture in the folder, and its annotations.

    known: image id -> labels that were annotated before. Others stay without annotation, unless somebody added them.
    """
    named = sorted({label for labels in corrections.shown.values() for label in labels})
    classes = space.names if corrections.classes is None else corrections.classes
    check_categories(space, {*named, *classes}, (), path, "label")
    label_of = labels_of(space, {*named, *classes, *chain.from_iterable(known.values())})
    if strange := [label for label in named if label not in label_of]:
        others = f" {count(len(strange) - 1, 'more label')} are unknown." if len(strange) > 1 else ""
        raise ValueError(
            f"{path}: {unknown('label', strange[0], space.names)}{others} Add it to the label file, give its label"
            " there an alias, or correct it"
        )
    annotated = {label_of[label] for label in classes if label in label_of}
    place = _Places(folder)
    for name, labels in corrections.shown.items():
        file, shown = place.of(name, path), {label_of[label] for label in labels}
        exported = known.get(Path(file).stem, classes)  # by the names that labels had then
        before = {label_of[label] for label in exported if label in label_of} & annotated
        yield file, {label: int(label in shown) for label in space.names if label in before | shown}


def _annotated_before(folder: Path, path: Path) -> dict[str, set[str]]:
    """Return image id -> labels that were annotated when we exported it; {} for what is not our export.

    Raises:
        ValueError: a file is called like that of our exports, and is not one.
    """
    places = [parent / ORIGIN for parent in (folder, path.parent, folder.parent, path.parent.parent)]
    for origin in (place for place in places if place.is_file()):
        try:
            with origin.open(encoding="utf-8", newline="\n") as lines:
                rows: Iterator[dict[str, Any]] = map(json.loads, lines)
                return {row["image_id"]: {*row["labels"], *row["absent"]} for row in rows}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{origin} is not that of an export ({first_line(error)}): restore it, or move it away; labels that"
                " are not ticked count as absent then"
            ) from error
    return {}


def _stored_name(name: str) -> str:
    """Return the name that Django, and so Label Studio, gives an uploaded file."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


class _Places:
    """Pictures of a folder, found by the names that programs give them: path or file name, with or without suffix.

    Label Studio adds a prefix to the name of an uploaded file, and removes blanks and brackets from it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: dict[str, list[str]] = {}
        self.files: dict[str, list[str]] = {}
        self.uploads: dict[str, list[str]] = {}
        for name in find_photos(folder, "--images").photos:
            path = Path(name)
            for key in {name, path.with_suffix("").as_posix()}:
                self.paths.setdefault(key, []).append(name)
            for key in {path.name, path.stem}:
                self.files.setdefault(key, []).append(name)
            for key in {path.name, _stored_name(path.name)}:
                self.uploads.setdefault(key, []).append(name)

    def of(self, name: str, source: Path) -> str:
        """Return the picture of a name.

        Raises:
            ValueError: there is none, or several.
        """
        written = composed(name)
        path = Path(written if written in self.paths else written.replace("\\", "/"))
        found = self.paths.get(path.as_posix()) or self.files.get(path.name) or self._uploaded(path.name)
        if not found:
            raise ValueError(
                f"{source} names {name}, and {self.folder} has no such picture: name the folder of the pictures"
                " (--images)"
            )
        if len(found) > 1:
            raise ValueError(f"{source} names {name}, and {self.folder} has {some(found)}: name its --images")
        return found[0]

    def _uploaded(self, name: str) -> list[str]:
        prefix = UPLOAD_PREFIX.match(name)
        return self.uploads.get(name[prefix.end() :], []) if prefix else []
