"""Folders of photos beside those of the data set: photos that are lent or retrieved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tailorset.commands.findings import Finding
from tailorset.images.codec import decode_image, file_content
from tailorset.messages import count, some
from tailorset.project.params import Params
from tailorset.storage.photo_files import find_photos

LOOKED_AT = 20  # photos of a folder that are decoded in a check of seconds


def further_photos(params: Params, whole: bool = False) -> Iterator[Finding]:
    """Check that these folders hold photos that can be read; `whole` reads all of them, not only some."""
    folders = {
        "prepare_dataset.lend_photos": params.prepare_dataset.lend_photos,
        "generator.images": dict(params.generator.config).get("images"),
    }
    for key, folder in folders.items():
        if isinstance(folder, Path):
            yield from _photos_of(key, folder, whole)


def _photos_of(key: str, folder: Path, whole: bool) -> Iterator[Finding]:
    try:
        found = find_photos(folder, key)
    except ValueError as error:
        yield Finding("error", "data", str(error), "see docs/data-sets.md")
        return
    photos = list(found.photos.values())
    looked_at = photos if whole else photos[:: -(-len(photos) // LOOKED_AT)]
    faults = dict(_faults(looked_at))
    named = f"{some(list(faults))}, the first one because {next(iter(faults.values()), '')}"
    if len(faults) == len(looked_at) and len(dict(_faults(photos))) == len(photos):
        text = f"{key}: none of {count(len(photos), 'photo')} in {folder} can be read: {named}"
        yield Finding("error", "data", text, f"put readable photos there, or set {key} to another folder")
    elif faults:
        text = f"{key}: {len(faults)} of {count(len(looked_at), 'photo')} looked at in {folder} cannot be read and are"
        yield Finding("warning", "data", f"{text} left out: {named}", "make them readable, or remove them")
    if note := found.unread_note():
        yield Finding("warning", "data", f"{key}: {note}", "make them readable, or remove them")
    if len(found.others) > len(photos):
        text = (
            f"{key}: {folder} has {count(len(photos), 'photo')} and {len(found.others):,} files of kinds that are not"
        )
        yield Finding("warning", "data", f"{text} read ({some(found.others)})", "convert them if they are photos")


def _faults(photos: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield each photo that cannot be read, and the reason."""
    for path in photos:
        try:
            decode_image(file_content(path))
        except (OSError, ValueError) as error:
            yield path, str(error)
