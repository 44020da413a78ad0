"""The project's own folder, and what relative paths of the settings are relative to."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """The project's own folder, also from inside the temporary copy in which DVC runs an experiment."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def in_project(path: Path) -> Path:
    """Path of the settings as it can be opened: `~` is the user's home, all else is relative to the project.

    DVC's temporary copy holds what git tracks, with the experiment's changes; the rest is in the project itself.
    """
    path = path.expanduser()
    root = project_root()
    return path if root == Path.cwd() or os.path.exists(path) else root / path
