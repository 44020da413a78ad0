"""Photos in a folder of the user's, wherever it is: one rule for annotated, lent and retrieved ones."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tailorset.images.codec import SUFFIXES
from tailorset.messages import count, some
from tailorset.records.names import composed


class Unread(NamedTuple):
    """A file or folder that cannot be read, and why."""

    path: Path
    reason: str


class Found(NamedTuple):
    """Files below a folder by their names relative to it; unread: what cannot be opened, with the reason."""

    photos: dict[str, Path]
    others: list[str]
    unread: dict[str, str]

    def unread_note(self) -> str:
        """Note on the photos that cannot be opened, with reasons; "" if all can."""
        reasons = [f"{name} ({reason})" for name, reason in self.unread.items()]
        number = count(len(reasons), "file or folder", "files or folders")
        return f"{number} cannot be opened: {some(reasons)}" if reasons else ""

    def trace(self, name: str) -> str:
        """Describe what exists instead of a photo of this name."""
        for unread, reason in self.unread.items():
            if f"{name}/".startswith(f"{unread}/"):
                return f"{unread} cannot be opened: {reason}"
        if name in self.others:
            return f"its kind is not read: convert it, {', '.join(SUFFIXES)} are"
        for same in (str.casefold, lambda path: Path(path).name.casefold(), lambda path: Path(path).stem.casefold()):
            if near := next((other for other in (*self.photos, *self.others) if same(other) == same(name)), None):
                return f"there is {near}"
        return "there is nothing like it"


def find_photos(folder: Path, setting: str = "prepare_dataset.images") -> Found:
    """Return all files below a folder but hidden ones. setting: the one that names the folder, for errors.

    Raises:
        ValueError: no such folder, or no image in it, or two photos whose names differ in how accents are composed.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: set {setting} to the folder of your photos")
    visible: dict[str, Path] = {}
    unread: dict[str, str] = {}
    for found in files_below(folder):
        path = found.path if isinstance(found, Unread) else found
        relative = path.relative_to(folder)
        if any(part[0] == "." for part in relative.parts):
            continue
        name = _name(relative.as_posix())
        if name in visible:
            raise ValueError(f"{path} and {visible[name]} have names that look the same: rename one of them")
        if isinstance(found, Unread):
            unread[name] = found.reason
        else:
            visible[name] = path
    photos = {name: path for name, path in visible.items() if path.suffix.lower() in SUFFIXES}
    listing = Found(photos, [name for name in visible if name not in photos], unread)
    if not photos:
        others = ", ".join(part for part in (some(listing.others), listing.unread_note()) if part)
        held = f"holds {count(len(visible), 'file')} and no image" if visible else "holds no file that can be read"
        raise ValueError(
            f"{folder} {held}{f' ({others})' if others else ''}: images end with {', '.join(SUFFIXES)};"
            f" put photos there, or set {setting} to another folder"
        )
    return listing


def _name(written: str) -> str:
    """The name of a file as messages and tables may hold it.

    Raises:
        ValueError: a photo has a line break or the like in its name, or bytes that are no UTF-8.
    """
    if not any(unicodedata.category(char) in ("Cc", "Cs") for char in written):
        return composed(written)
    if Path(written).suffix.lower() in SUFFIXES:
        raise ValueError(f"names of photos must be text in UTF-8, on one line: rename {written!r}")
    return ascii(written)


def files_below(path: Path) -> Iterator[Path | Unread]:
    """Yield the file itself, or all files in a folder and the folders below it, linked ones too, in order.

    A linked folder is listed under both its names: one may be hidden, or not be the one that a table uses.
    What cannot be read comes with the reason: folders without permission, links to nothing, pipes and devices.
    """
    if not path.is_dir():
        yield from _readable(path) if os.path.lexists(path) else ()
        return
    unread: list[Unread] = []
    above: dict[str, frozenset[str]] = {}  # folder -> where it and those above it really are

    def note(error: OSError) -> None:
        unread.append(Unread(Path(error.filename), error.strerror or str(error)))

    for folder, folders, names in os.walk(path, onerror=note, followlinks=True):
        real, parents = os.path.realpath(folder), above.get(os.path.dirname(folder), frozenset())
        if real in parents:  # a link to a folder above
            folders.clear()
            continue
        above[folder] = parents | {real}
        folders.sort()
        for name in sorted(names):
            yield from _readable(Path(folder, name))
    yield from sorted(unread)


def _readable(path: Path) -> Iterator[Path | Unread]:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        yield Unread(path, f"a link to {os.readlink(path)}, which is not there")
    except OSError as error:
        yield Unread(path, error.strerror or str(error))
    else:
        yield path if stat.S_ISREG(mode) else Unread(path, "neither a file nor a folder")
