"""Files of labels that several pages of this machine may save to at the same time."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

PATIENCE_S = 10


def lock_of(path: Path) -> FileLock:
    """Return the lock to hold while a file is read, changed and written; a hidden file beside it.

    Raises:
        TimeoutError: on entering it, if another process holds it for too long.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"), timeout=PATIENCE_S)
