"""Wording that error messages share: the nearest choice, pydantic's faults, the first few of many."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

MAX_SHOWN = 60  # characters of a faulty value
MAX_NAMED = 5  # examples in a message


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Call an unknown key a typo.

    Raises:
        ValueError: names the key, the nearest known one and all choices.
    """
    choices = tuple(known)
    for key in given:
        if key not in choices:
            raise ValueError(unknown(f"key of {where}", key, choices))


def unknown(what: str, name: object, choices: Iterable[str]) -> str:
    """The sentence for a name that does not exist: nearest name first, then every choice."""
    choices = tuple(choices)
    nearest = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"Unknown {what}: {name!r}.{hint} Choices: {', '.join(choices) or 'none yet'}."


def faults(error: ValidationError) -> str:
    """Pydantic's complaints, one a line: where, what is wrong, and the value, if it is a short one."""
    lines = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"]) or "top level"
        given = fault["input"]
        is_told = isinstance(given, Mapping) or fault["type"] in ("missing", "value_error")
        value = "" if is_told or len(repr(given)) > MAX_SHOWN else f", not {given!r}"
        lines.append(f"  {where}: {fault['msg'].removeprefix('Value error, ')}{value}")
    return "\n".join(lines)


def problems(error: ValidationError) -> Iterator[str]:
    """Each fault of a record on a line: where, what, and the value."""
    for detail in error.errors():
        where = ".".join(str(part) for part in detail["loc"])
        value: Any = detail["input"]
        got = f" (got {value!r})" if isinstance(value, str | int | float | bool) else ""
        hint = "; quote names that YAML reads as numbers or booleans" if detail["type"] == "string_type" else ""
        yield f"{where + ': ' if where else ''}{detail['msg'].removeprefix('Value error, ')}{got}{hint}"


def some(names: Sequence[object]) -> str:
    """The first few of many, for a message."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(map(str, names[:MAX_NAMED])) + more


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
