"""Files and folders that are complete or missing, never half written; JSON and metrics in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling to write a file or folder to; it takes the place of `path` only on success."""
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(partial)
    yield partial
    if partial.is_dir() or path.is_dir():
        remove_at_once(path)
    partial.replace(path)


def remove_at_once(path: Path) -> None:
    """Remove a file or folder so that a kill never leaves half of it in its place: it is renamed first."""
    former = path.with_name(f".{path.name}.former")
    _remove(former)
    with suppress(FileNotFoundError):
        path.rename(former)
    _remove(former)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Stable JSON: sorted keys, one newline at the end; NaN is refused."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
    with atomic_output(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_metrics(path: Path) -> dict[str, float]:
    """Read a metrics.json; {} if there is no such file.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): `git checkout` or `make run` restores it") from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
