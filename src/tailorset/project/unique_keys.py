"""Keys that a YAML file has twice: YAML readers keep the last one and drop the rest without a word."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_unique_keys(text: str, source: object) -> None:
    """Check that no mapping of a YAML text has a key twice.

    Raises:
        ValueError: one has.
        yaml.YAMLError: the text is not valid YAML.
    """
    for key, first, again in _repeated(yaml.compose(text, Loader=LOADER), set()):
        raise ValueError(f"{source} has {key!r} twice, in lines {first} and {again}: remove one of them")


def _repeated(node: yaml.Node | None, visited: set[int]) -> Iterator[tuple[str, int, int]]:
    """Yield each repeated key with the lines of its first and its later place."""
    if id(node) in visited:  # an alias
        return
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
                yield key.value, lines[key.value], line
            yield from _repeated(value, visited)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item, visited)
