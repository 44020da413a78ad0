"""An export from beginning to end: parts that are not written again after an interruption, then labels, then the rest.

While it runs, everything is in a hidden folder next to its target; the target appears when all is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tailorset.exports import ExportedImage, Format
from tailorset.exports.parts.croissant import Description, write_description
from tailorset.exports.parts.files import as_json, write_lines
from tailorset.exports.parts.source import ExportSource, Stored
from tailorset.progress import Bar
from tailorset.records import SPLITS, Split

PART_SIZE = 1000  # images; a part that is complete is not written again
IMAGES = "images.jsonl"  # in every export: a line per image, with its origin


@dataclass(frozen=True)
class WrittenSet:
    """Images of the parts that are written: `rows` has a file of JSON lines per part."""

    labels: tuple[str, ...]
    rows: Path

    @property
    def splits(self) -> tuple[Split, ...]:
        """Splits that have images."""
        return tuple(split for split in SPLITS if any(self.rows.glob(f"{split}-*.jsonl")))

    def images(self, split: Split | None = None) -> Iterator[ExportedImage]:
        """Yield the images of a split, or all, always in the same order."""
        for one in [split] if split else SPLITS:
            for path in sorted(self.rows.glob(f"{one}-*.jsonl")):
                yield from _read(path)


def partial_folder(output: Path) -> Path:
    """Return the folder of an unfinished export."""
    return output.with_name(f".{output.name}.partial")


def run_export(
    name: str, form: Format, source: ExportSource, output: Path, description: Description, part_size: int = PART_SIZE
) -> WrittenSummary:
    """Write an export, or the rest of an interrupted one.

    name: that of the format.

    Raises:
        ValueError: the target exists, no image is left, or products do not fit together.
        OSError: it cannot be written.
    """
    check_target(output)
    total, partial = source.count(), partial_folder(output)
    folder, written = partial / "set", WrittenSet(source.labels, partial / "rows")
    _begin(partial, f"{name} {part_size} {source.digest()}\n")
    with Bar(total=total, desc=f"export {name}", unit="image", leave=True) as bar:
        for split in source.splits:
            for number, images in enumerate(_parts(source.images(split), part_size)):
                _write_part(form, source, folder, written.rows / f"{split}-{number:05d}.jsonl", number, images, bar)
    form.write_labels(folder, written)
    write_lines(folder / IMAGES, (as_json(image._asdict()) for image in written.images()))
    summary = _summary(written)
    write_description(folder, source.labels, description)
    (partial / "plan").unlink()  # nothing is left to go on with once the pictures are gone from here
    folder.rename(output)
    shutil.rmtree(partial)
    return summary


@dataclass(frozen=True)
class WrittenSummary:
    """Number of images of each split and source, and of each label."""

    images: dict[str, int]
    labels: dict[str, int]


def _summary(written: WrittenSet) -> WrittenSummary:
    images: dict[str, int] = {}
    labels = dict.fromkeys(written.labels, 0)
    for image in written.images():
        title = f"{image.split}, {'photos' if image.source == 'real' else 'generated'}"
        images[title] = images.get(title, 0) + 1
        for label in image.labels:
            labels[label] += 1
    return WrittenSummary(images, labels)


def check_target(output: Path) -> None:
    """Check that nothing is overwritten.

    Raises:
        ValueError: something of that name exists.
    """
    if output.exists() or output.is_symlink():
        raise ValueError(f"{output} exists, and nothing is overwritten: remove it, or choose another --output")


def _begin(partial: Path, plan: str) -> None:
    """Keep an unfinished export of the same plan, remove any other."""
    note = partial / "plan"
    if not note.is_file() or note.read_text(encoding="utf-8") != plan:
        shutil.rmtree(partial, ignore_errors=True)
    for name in ("rows", "set"):
        (partial / name).mkdir(parents=True, exist_ok=True)
    note.write_text(plan, encoding="utf-8")


def _parts(images: Iterable[Stored], size: int) -> Iterator[list[Stored]]:
    images = iter(images)
    while part := list(islice(images, size)):
        yield part


def _write_part(
    form: Format, source: ExportSource, folder: Path, rows: Path, number: int, images: list[Stored], bar: Bar
) -> None:
    """Write the pictures of a part and then its rows, which tell that it is complete."""
    if rows.exists():
        bar.update(len(images))
        return
    placed = [one._replace(image=_placed(one.image, form, number)) for one in images]
    form.write_images(folder, source.labels, _counted(source.contents(placed), bar))
    write_lines(rows, (as_json(one.image._asdict()) for one in placed))


def _placed(image: ExportedImage, form: Format, number: int) -> ExportedImage:
    return image._replace(file=form.place(image.image_id, image.split, number))


def _counted(images: Iterable[tuple[ExportedImage, bytes]], bar: Bar) -> Iterator[tuple[ExportedImage, bytes]]:
    for image in images:
        yield image
        bar.update()


def _read(path: Path) -> Iterator[ExportedImage]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield ExportedImage(**json.loads(line))
