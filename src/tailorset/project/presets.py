"""Presets: a file each in presets/ that holds what differs from another preset; toybox.yaml is the base of all.

A preset is laid over its base line by line, so the whole params.yaml keeps the comments that say what a key means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tailorset.messages import unknown
from tailorset.project.params import Params, check_params, read_yaml

FOLDER = Path("presets")
BASE = "toybox"  # holds every block; what a preset names as its `base` may itself differ from another one
KEY = re.compile(r"(?P<indent> *)(?P<key>[\w.-]+):(?: |$)")
COMMENT = re.compile(r" +#.*$")

KeyPath = tuple[str, ...]
SAME_KEYS: set[KeyPath] = {("generate_images", "allocation", "name")}  # names of no plug-ins: all take the same keys


@dataclass(frozen=True)
class Entry:
    """The lines of one key: blank lines and comments above it, its own line, further lines of its value."""

    above: tuple[str, ...]
    line: str
    rest: tuple[str, ...] = field(default=())

    @property
    def comment(self) -> str:
        """The comment at the end of the key's line, "" without one."""
        found = COMMENT.search(self.line)
        return found[0].strip() if found else ""

    def over(self, other: Entry) -> Entry:
        """Return this entry with the comments of the one it replaces, where it has none itself."""
        line = self.line
        if other.comment and not self.comment:
            line = f"{line:<{other.line.index(other.comment) - 2}}  {other.comment}"
        return replace(self, above=self.above or other.above, line=line)


def preset_names(folder: Path = FOLDER) -> list[str]:
    """Names of all presets, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_preset(name: str, folder: Path = FOLDER) -> Params:
    """Return a preset's settings, validated.

    Raises:
        ValueError: no such preset, or its settings are not valid.
    """
    return check_params(yaml.safe_load(preset_text(name, folder)), folder / f"{name}.yaml")


def preset_text(name: str, folder: Path = FOLDER) -> str:
    """Return the whole params.yaml of a preset: its base's text, with the preset's header, values and comments.

    Raises:
        ValueError: there is no such preset, it is not valid YAML, or its bases lead back to itself.
    """
    chain = [name]
    while (base := _base(chain[-1], folder)) is not None:
        if base in chain:
            raise ValueError(f"{folder / name}.yaml: base {base} leads back to itself ({' -> '.join([*chain, base])})")
        chain.append(base)
    *others, root = chain
    text = (folder / f"{root}.yaml").read_text(encoding="utf-8")
    for other in reversed(others):
        text = overlay(text, (folder / f"{other}.yaml").read_text(encoding="utf-8"))
    return text


def _base(name: str, folder: Path) -> str | None:
    """Name of the preset that a preset differs from; None for the base of all."""
    if name not in preset_names(folder):
        raise ValueError(unknown("preset", name, preset_names(folder)))
    base = read_yaml(folder / f"{name}.yaml").get("base", BASE)
    return None if name == BASE else base


def overlay(base: str, changes: str) -> str:
    """Return the text of settings with other values, keys and header; comments stay where `changes` gives no other.

    A block that names another plug-in replaces the whole block, as its other keys belong to that plug-in; names of
    SAME_KEYS do not.

    Raises:
        ValueError: a value of `changes` did not arrive, since it is written in a way that lines cannot express.
    """
    entries, header = _entries(base)
    changed, new_header = _entries(changes)
    changed.pop(("base",), None)
    old, new = yaml.safe_load(base), yaml.safe_load(changes)
    for path in changed:
        is_plugin = path[-1] == "name" and len(path) > 1 and path not in SAME_KEYS
        if is_plugin and path in entries and _value(old, path) != _value(new, path):
            entries = _without_keys_below(entries, path[:-1])
    leaves = [path for path in changed if not _is_block(changed, path)]
    for path, entry in changed.items():
        if path in leaves or not _is_block(entries, path):
            entries = _put(entries, path, entry)
    lines = [line for entry in entries.values() for line in (*entry.above, entry.line, *entry.rest)]
    text = "\n".join([*(new_header or header), *lines]) + "\n"
    result = yaml.safe_load(text)
    for path in leaves:
        if _value(result, path) != _value(new, path):
            raise ValueError(f"{'.'.join(path)} cannot be read as a line of settings: write `key: value` on one line")
    return text


def _is_block(entries: dict[KeyPath, Entry], path: KeyPath) -> bool:
    return any(key[:-1] == path for key in entries)


def _put(entries: dict[KeyPath, Entry], path: KeyPath, entry: Entry) -> dict[KeyPath, Entry]:
    """Return the entries with one replaced or added; a new key comes last in its block."""
    if path in entries:
        return _without_keys_below(entries, path) | {path: entry.over(entries[path])}
    block, items = path[:-1], list(entries.items())
    places = [place for place, key in enumerate(entries) if key[: len(block)] == block]
    items.insert(places[-1] + 1 if places else len(items), (path, entry))
    return dict(items)


def _without_keys_below(entries: dict[KeyPath, Entry], path: KeyPath) -> dict[KeyPath, Entry]:
    return {key: entry for key, entry in entries.items() if key == path or key[: len(path)] != path}


def _entries(text: str) -> tuple[dict[KeyPath, Entry], list[str]]:
    """Return the entries of a text by key path, in order, and the comment lines at its top."""
    lines = text.rstrip("\n").split("\n")
    start = next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))
    entries: dict[KeyPath, Entry] = {}
    parents: list[tuple[int, str]] = []
    above: list[str] = []
    for line in lines[start:]:
        match = KEY.match(line)
        if match:
            indent = len(match["indent"])
            parents = [parent for parent in parents if parent[0] < indent] + [(indent, match["key"])]
            entries[tuple(key for _, key in parents)] = Entry(tuple(above), line)
            above = []
        elif not line.strip() or line.lstrip().startswith("#") or not entries:
            above.append(line)
        else:
            last = next(reversed(entries))
            entries[last] = replace(entries[last], rest=(*entries[last].rest, *above, line))
            above = []
    return entries, lines[:start]


def _value(values: Any, path: KeyPath) -> Any:
    """The value of a key; None where the path ends early."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values
