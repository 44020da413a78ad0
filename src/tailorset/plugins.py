"""Find a plug-in by its name: a variant is one file in a plug-in folder, with a pydantic `Config` and a `build`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

KINDS = ("datasets", "llms", "generators", "filters", "classifiers")

MAX_SHOWN = 60  # characters of a faulty value


def plugin_names(kind: str) -> tuple[str, ...]:
    """Return the variants of a plug-in folder in alphabetical order: its modules, not its packages."""
    if kind not in KINDS:
        raise ValueError(unknown("plug-in folder", kind, KINDS))
    folder = importlib.import_module(f"tailorset.{kind}")
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folder.__path__) if not module.ispkg))


def load_plugin(kind: str, name: str) -> ModuleType:
    """The module of one variant, with its `Config` and `build`.

    Raises:
        ValueError: no variant of that name; lists the choices and the nearest name.
    """
    names = plugin_names(kind)
    if name not in names:
        remedy = f" A new one is a file src/tailorset/{kind}/NAME.py."
        raise ValueError(unknown(f"variant of {kind}", name, names) + remedy)
    return importlib.import_module(f"tailorset.{kind}.{name}")


def plugin_config(kind: str, block: Mapping[str, Any], also_known: Iterable[str] = ()) -> BaseModel:
    """Validate a params block {"name": variant, other keys} with the variant's own Config.

    `also_known`: keys that stand in the same block of params.yaml but belong to the stage; named among the choices.

    Raises:
        ValueError: no or unknown name, unknown key, missing or wrong value.
    """
    if "name" not in block:
        choices = ", ".join(plugin_names(kind))
        raise ValueError(f"this block names no variant of {kind}: add `name:`. Choices: {choices}.")
    config = load_plugin(kind, block["name"]).Config
    values = {key: value for key, value in block.items() if key != "name"}
    where = f"{kind}/{block['name']}"
    check_keys(values, (*config.model_fields, *sorted(also_known)), where)
    try:
        return config(**values)
    except ValidationError as error:
        raise ValueError(f"{where} is not valid:\n{faults(error)}") from None


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
