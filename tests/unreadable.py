"""A folder that may not be listed, also for root, whom no permission stops."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


def forbid(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the system refuse to list a folder."""
    scandir = os.scandir

    def refusing(path: Any = ".") -> Any:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    patch.setattr(os, "scandir", refusing)
