"""The text between the marks of docs/performance.md, and the format of its figures."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path("docs/performance.md")


def put(mark: str, content: str) -> None:
    """Replace the text between `<!-- mark -->` and `<!-- /mark -->`."""
    between = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(between.sub(lambda marks: f"{marks[1]}{content}\n{marks[2]}", text), encoding="utf-8")


def significant(value: float) -> str:
    """Three digits, in plain notation: 15,000, 4.21, 0.0123."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{float(f'{value:.3g}'):.10g}"
