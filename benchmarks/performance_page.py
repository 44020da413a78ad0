"""The text between the marks of docs/performance.md, and the format, the files and the machine of its figures."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

PAGE = Path("docs/performance.md")


def read_figures(path: Path) -> dict[str, Any]:
    """Return the stored figures; {} if there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def store_figures(figures: Mapping[str, Any], path: Path, sort_keys: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2, sort_keys=sort_keys) + "\n", encoding="utf-8")


def processor() -> str:
    return f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"


def put(mark: str, content: str) -> None:
    """Replace the text between `<!-- mark -->` and `<!-- /mark -->`."""
    between = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(between.sub(lambda marks: f"{marks[1]}{content}\n{marks[2]}", text), encoding="utf-8")


def significant(value: float) -> str:
    """Three digits, in plain notation: 15,000, 4.21, 0.0123."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{float(f'{value:.3g}'):.10g}"
