"""Resume folders, .work/STAGE/FINGERPRINT: they stay until DVC has stored what their stage made."""

from __future__ import annotations

import os
from pathlib import Path

from tailorset.storage.files import remove_at_once

FINISHED = "finished"  # an empty file in the folder of a stage that has ended, which DVC may not have stored yet


def begin(root: Path, work_dir: Path) -> None:
    """Make the resume folder, or continue in it, once those that are no longer needed are deleted."""
    forget_finished(root)
    work_dir.mkdir(parents=True, exist_ok=True)
    (work_dir / FINISHED).unlink(missing_ok=True)


def end(name: str, work_dir: Path) -> None:
    """Mark the resume folder as finished where DVC runs the stage and is yet to store its products; else delete it."""
    if os.environ.get("DVC_STAGE") == name:
        (work_dir / FINISHED).touch()
    else:
        remove_at_once(work_dir)


def forget_finished(root: Path) -> None:
    """Delete the folders of stages that ended before DVC last stored products, which is when it writes dvc.lock."""
    lock = Path("dvc.lock")
    stored = lock.stat().st_mtime if lock.exists() else 0.0
    for mark in (root / ".work").glob(f"*/*/{FINISHED}"):
        if mark.stat().st_mtime < stored:
            remove_at_once(mark.parent)
