"""YAML files that people write: a key that is there twice is an error, where YAML readers keep the last one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tailorset.messages import cause_of, some

MAX_CHOICES = 20  # files that an error lists
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, what: str, remedy: str) -> Any:
    """Return the content of a YAML file; errors call it `what`, and end with the remedy.

    Raises:
        ValueError: it is missing, no text, no YAML, or `parse_yaml` refuses it.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), f"{what} {path}")
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{what} {path} cannot be read ({cause_of(error)}){_others(path)}: {remedy}") from error


def _others(path: Path) -> str:
    """Name the files that may be meant by one that is missing."""
    others = [other.name for other in sorted(path.parent.glob(f"*{path.suffix}"))]
    return "" if path.exists() or not others else f"; in {path.parent} there are {some(others, MAX_CHOICES)}"


def parse_yaml(text: str, source: object) -> Any:
    """Return the content of a YAML text; `source` is how errors call it.

    Raises:
        ValueError: a mapping has a key twice, or a value is not what it looks like, e.g. a date that does not exist.
        yaml.YAMLError: the text is not valid YAML.
    """
    loader = LOADER(text)
    try:
        node = loader.get_single_node()
        for key, first, again in _repeated(node, set()):
            where = f"line {first}" if first == again else f"lines {first} and {again}"
            raise ValueError(f"{source} has {key!r} twice, in {where}: remove one of them")
        return None if node is None else _content(loader, node, source)
    finally:
        loader.dispose()


def _content(loader: Any, node: yaml.Node, source: object) -> Any:
    try:
        return loader.construct_document(node)
    except ValueError as error:
        raise ValueError(
            f"{source} has a value that is no date or number, though it looks like one ({error}): quote it"
        ) from None


def _repeated(node: yaml.Node | None, visited: set[int]) -> Iterator[tuple[str, int, int]]:
    """Yield each repeated key with the lines of its first and its later place."""
    if id(node) in visited:  # an alias
        return
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    yield key.value, lines[key.value], line
                lines[key.value] = line
            yield from _repeated(value, visited)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item, visited)
