"""Definitions of dvc.yaml: a stage's dependencies and settings, and the fingerprint of both."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailorset.messages import unknown
from tailorset.project.params import flatten, read_yaml
from tailorset.storage.checksums import file_digest


def stage_names(folder: Path | None = None) -> list[str]:
    """Return the stages of dvc.yaml, in its order."""
    return list(read_yaml((folder or Path.cwd()) / "dvc.yaml").get("stages", {}))


def stage_definition(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Return what a stage depends on by dvc.yaml: {"deps": [paths], "params": {flat name: value}}, templates resolved.

    Raises:
        ValueError: no such stage, or a template that params.yaml does not fill.
    """
    folder = folder or Path.cwd()
    values = read_yaml(folder / "params.yaml")
    stages = read_yaml(folder / "dvc.yaml").get("stages", {})
    if name not in stages:
        raise ValueError(unknown("stage of dvc.yaml", name, stages))
    deps = [_fill(dep, flatten(values)) for dep in stages[name].get("deps", [])]
    return {"deps": deps, "params": _selected(values, stages[name].get("params", []))}


def fingerprint(definition: Mapping[str, Any]) -> str:
    """Name of a resume folder: changes with any parameter, dependency or line of code the stage depends on."""
    hashes = {dep: _content_hash(Path(dep)) for dep in definition["deps"]}
    content = json.dumps([definition["params"], hashes], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _selected(values: Mapping[str, Any], names: list[Any]) -> dict[str, Any]:
    flat = flatten(values)
    return {key: value for key, value in flat.items() for name in names if key == name or key.startswith(f"{name}.")}


def _fill(template: Any, values: Mapping[str, Any]) -> str:
    path = next(iter(template)) if isinstance(template, Mapping) else template

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ValueError(f"dvc.yaml, {path!r}: " + unknown("key of params.yaml", match[1], values))
        return str(values[match[1]])

    return re.sub(r"\$\{([^}]+)\}", value, path)


def _content_hash(path: Path) -> str:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    for file in files:
        if "__pycache__" in file.parts:
            continue
        if not file.exists():
            raise ValueError(f"{file} is missing: run `dvc repro`, which makes what a stage depends on first.")
        total.update(f"{file.relative_to(path)}:{file_digest(file)}\n".encode())
    return total.hexdigest()
