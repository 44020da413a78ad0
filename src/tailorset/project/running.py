"""The stage that runs now: its resume folder, the progress file in it, and how long stages took the last time.

A resume folder, .work/STAGE/FINGERPRINT, stays until DVC has stored what its stage made.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from tailorset.progress import Position, Report, reporting
from tailorset.project.busy import Others
from tailorset.project.definition import stage_names
from tailorset.project.layout import is_own_folder
from tailorset.storage.files import remove_at_once, write_json

FINISHED = "finished"  # an empty file in the folder of a stage that has ended, which DVC may not have stored yet
PROGRESS = "progress.json"
DURATIONS = Path(".work/durations")


def open_work_dir(root: Path, work_dir: Path) -> None:
    """Make the resume folder, or continue in it, once those that are no longer needed are deleted."""
    forget_finished(root)
    work_dir.mkdir(parents=True, exist_ok=True)
    (work_dir / FINISHED).unlink(missing_ok=True)


def close_work_dir(name: str, work_dir: Path) -> None:
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


@contextmanager
def progress_shown(name: str, root: Path, work_dir: Path, is_main: bool) -> Iterator[Position]:
    """Keep the stage's progress file up to date, and remember how long the stage took when it was not interrupted."""
    position, start = place(name, root), time.monotonic()
    is_fresh = not any(work_dir.iterdir())
    process = psutil.Process()
    identity = {"pid": process.pid, "created": process.create_time()}

    def tell(report: Report) -> None:
        write_json(work_dir / PROGRESS, asdict(report) | identity | {"at": time.time()})

    with reporting(position, tell, is_main, Others().recent_cores):
        yield position
    if is_main and is_fresh and is_own_folder(root):
        write_json(root / DURATIONS / f"{name}.json", {"seconds": time.monotonic() - start})


def place(name: str, root: Path) -> Position:
    """Place of a stage in dvc.yaml, and the last durations of it and the stages after it; other work is alone."""
    stages = stage_names()
    stages = stages if name in stages else [name]
    number, known = stages.index(name) + 1, last_durations(root)
    after = [known.get(later) for later in stages[number:]]
    total = None if None in after else sum(seconds for seconds in after if seconds is not None)
    return Position(name, number, len(stages), known.get(name), total)


def last_durations(root: Path) -> dict[str, float]:
    """stage -> seconds of its last run that was not interrupted, imports not included."""
    return {
        path.stem: float(content["seconds"])
        for path in sorted((root / DURATIONS).glob("*.json"))
        if (content := _read(path)) is not None
    }


def running_stages(root: Path) -> list[str]:
    """Return a line per stage whose process is alive; files that a killed one left behind are ignored."""
    found = []
    for path in sorted((root / ".work").glob(f"*/*/{PROGRESS}")):
        content = _read(path)
        if content is None or not _is_alive(content.pop("pid"), content.pop("created")):
            continue
        age = time.time() - content.pop("at")
        if content["left"] is not None:
            content["left"] = max(0.0, content["left"] - age)
        found.append(str(Report(**content)))
    return found


def _is_alive(pid: int, created: float) -> bool:
    """Check that this very process is alive: ids are reused, and the system's clock moves a little."""
    try:
        return abs(psutil.Process(pid).create_time() - created) < 2
    except psutil.Error:
        return False


def _read(path: Path) -> dict[str, Any] | None:
    """Read a progress file; None if the stage has just ended and removed it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
