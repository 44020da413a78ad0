"""No logic stands twice: no five statements in a row occur in two places, whatever their layout and comments."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "pipeline", "benchmarks")
WINDOW = 5


def statements(source: str) -> list[str]:
    """A module line by line in one spelling, without imports, docstrings and comments."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [part for part in body if not _is_prose(part)] or [ast.Pass()]  # type: ignore[attr-defined]
    return [line.strip() for line in ast.unparse(tree).splitlines() if line.strip()]


def _is_prose(node: ast.stmt) -> bool:
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or isinstance(node, ast.Import | ast.ImportFrom)


def duplicates(sources: Mapping[str, str]) -> Iterable[str]:
    """Places of each window of statements that occurs again: here and first."""
    seen: dict[tuple[str, ...], str] = {}
    for name, source in sources.items():
        lines = statements(source)
        for start in range(len(lines) - WINDOW + 1):
            window = tuple(lines[start : start + WINDOW])
            place = f"{name}: {window[0]}"
            if seen.setdefault(window, place) != place:
                yield f"{place}  <-  {seen[window]}"


def test_no_code_stands_twice() -> None:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    found = list(duplicates({str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}))
    assert not found, "\n".join(["make one piece of code serve both:", *found])


def test_a_copy_is_found_behind_other_comments_and_layout() -> None:
    original = "def f(a):\n    'Doc.'\n    b = a + 1\n    c = [a,\n         b]\n    d = c * 2\n    return d\n"
    copy = "def f(a):  # a copy\n    b = a+1\n\n    c = [a, b]\n    d = c*2\n    return d\n"
    assert list(duplicates({"one.py": original, "two.py": copy}))
    assert not list(duplicates({"one.py": original, "two.py": copy.replace("* 2", "* 3").replace("*2", "*3")}))
