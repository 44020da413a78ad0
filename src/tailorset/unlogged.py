"""What MLflow does not have: kept until the stage is recorded, since a message on the screen scrolls by."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tailorset.files import write_json

FOLDER = Path(".work/unlogged")
MAX_NAMED = 12


class Gap(NamedTuple):
    """What is missing in MLflow, and what to do about it."""

    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}"


def keep(root: Path, stage: str, names: Sequence[str], cause: str) -> Gap:
    """Remember what a stage could not log, until `clear`."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    experiment = os.environ.get("DVC_EXP_NAME")
    where = f" in the experiment {experiment}" if experiment else ""
    gap = Gap(
        f"NOT RECORDED: MLflow lacks of {stage}{where} {', '.join(names[:MAX_NAMED])}{more} ({cause})",
        f"`dvc repro --force --single-item {stage}` records it",
    )
    write_json(_path(root, stage), gap._asdict())
    return gap


def clear(root: Path, stage: str) -> None:
    """Forget what an earlier run of a stage could not log."""
    _path(root, stage).unlink(missing_ok=True)


def gaps(root: Path) -> Iterator[Gap]:
    """Return what MLflow lacks of the last run of each stage."""
    for path in sorted((root / FOLDER).glob("*.json")):
        yield Gap(**json.loads(path.read_text(encoding="utf-8")))


def _path(root: Path, stage: str) -> Path:
    return root / FOLDER / f"{stage}.json"
