"""Wording that messages share: unknown keys, pydantic's problems, the first few of many, units of bytes."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

MAX_SHOWN = 60  # characters of a faulty value
MAX_NAMED = 5  # examples in a message
MAX_CHOICES = 50  # names that may be meant: of a thousand labels a terminal shows only the last
UNKNOWN_KEY = "no such key: correct its spelling, or remove it"
MAX_LINE = 300  # characters of an error's first line
GB, MIB, GIB = 10**9, 2**20, 2**30  # bytes


class Strict(BaseModel):
    """A frozen model of finite numbers; an unknown key is an error that names the nearest one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            check_keys(values, cls.model_fields, where=cls.__name__)
        return values


REMEDIES = {
    errno.EACCES: "name another place, or change its permissions",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOENT: "name one that exists",
    errno.ENOTDIR: "a file is in the place of a folder: name another place",
    errno.EPERM: "name another place, or change its permissions",
    errno.EROFS: "name a place that can be written to",
}


def reason_of(error: Exception) -> str:
    """Return the message of an error; that of a file which cannot be used names it and the remedy."""
    if isinstance(error, OSError) and error.filename and (remedy := REMEDIES.get(error.errno or 0)):
        return f"{error.filename} cannot be used ({error.strerror}): {remedy}"
    return str(error)


def cause_of(error: BaseException) -> str:
    """Return why a file cannot be read, for a message that names the file itself."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse keys that are not known.

    Raises:
        ValueError: names the key, the nearest known one and the choices.
    """
    choices = tuple(known)
    for key in given:
        if key not in choices:
            raise ValueError(unknown(f"key of {where}", key, choices))


def unknown(what: str, name: object, choices: Iterable[str]) -> str:
    """The sentence for a name that does not exist: nearest name first, then the choices."""
    choices = tuple(choices)
    nearest = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"Unknown {what}: {name!r}.{hint} Choices: {some(choices, MAX_CHOICES) or 'none yet'}."


def invalid(source: object, error: ValidationError) -> str:
    """Return the message on a file or block that is not valid: one indented line per problem."""
    return f"{source} is not valid:\n" + "\n".join(f"  {problem}" for problem in problems(error))


def problems(error: ValidationError) -> list[str]:
    """Return one line per problem that pydantic found: where, what is wrong, and the value, if it is a short one."""
    lines, found = [], error.errors()
    for problem in found:
        inner = (other for other in found if other["loc"][:-1] == problem["loc"])
        if problem["type"] == "too_short" and any(inner):
            continue  # counted without the items that are not valid
        where = ".".join(str(part) for part in problem["loc"])
        given, kind = problem["input"], problem["type"]
        is_told = isinstance(given, Mapping) or kind in ("missing", "value_error")
        value = "" if is_told or len(repr(given)) > MAX_SHOWN else f", not {given!r}"
        hint = "; quote names that YAML reads as numbers or booleans" if kind == "string_type" else ""
        said = problem["msg"].removeprefix("Value error, ")
        text = UNKNOWN_KEY if kind == "extra_forbidden" else said + value + hint
        lines.append(f"{where}: {text}" if where else text)
    return lines


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: 1 photo, 2 photos."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def some(names: Sequence[object], most: int = MAX_NAMED) -> str:
    """Return the first few of many names, and the number of the rest."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its text, cut to a length that a message can hold."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:MAX_LINE]
