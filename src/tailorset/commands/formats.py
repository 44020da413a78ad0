"""Formats of the data set, by their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from tailorset.plugins import EXPORTS, load_plugin, plugin_names

if TYPE_CHECKING:
    from tailorset.exports import Format, Reader

FORMATS = plugin_names(EXPORTS)


def format_named(name: str) -> Format:
    """Return a format.

    Raises:
        ValueError: there is none of that name; lists the choices.
    """
    return cast("Format", load_plugin(EXPORTS, name))


def readers() -> Iterator[Reader]:
    """Yield the formats whose labels can be read back."""
    for name in FORMATS:
        if hasattr(module := load_plugin(EXPORTS, name), "read"):
            yield cast("Reader", module)
