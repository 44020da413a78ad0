"""Find a plug-in by its name: a variant is one file in a plug-in folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from tailorset.messages import check_keys, invalid, unknown

KINDS = ("datasets", "llms", "llms/captioners", "generators", "filters", "classifiers")  # folders, for params.yaml
EXPORTS = "exports"  # a folder, for the command line


def plugin_names(kind: str) -> tuple[str, ...]:
    """Return the variants of a plug-in folder in alphabetical order: its modules, not its packages."""
    if kind not in (*KINDS, EXPORTS):
        raise ValueError(unknown("plug-in folder", kind, KINDS))
    folder = importlib.import_module(_module_name(kind))
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folder.__path__) if not module.ispkg))


def load_plugin(kind: str, name: str) -> ModuleType:
    """Return the module of one variant, with the functions that its folder requires.

    Raises:
        ValueError: no variant of that name; lists the choices and the nearest name.
    """
    names = plugin_names(kind)
    if name not in names:
        remedy = f" A new one is a file src/tailorset/{kind}/NAME.py."
        raise ValueError(unknown(f"variant of {kind}", name, names) + remedy)
    return importlib.import_module(f"{_module_name(kind)}.{name}")


def plugin_config(kind: str, block: Mapping[str, Any], also_known: Iterable[str] = ()) -> BaseModel:
    """Validate a params block {"name": variant, other keys} with the variant's own Config.

    also_known: keys of the same block of params.yaml that belong to the stage; errors list them among the choices.

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
        raise ValueError(invalid(where, error)) from None


def _module_name(kind: str) -> str:
    return f"tailorset.{kind.replace('/', '.')}"
