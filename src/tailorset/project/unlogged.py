"""Records that MLflow lacks: kept until the stage is recorded, as a message on the screen scrolls by."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tailorset.messages import some
from tailorset.project.layout import is_own_folder
from tailorset.storage.files import write_json

FOLDER = Path(".work/unlogged")  # of the project's last run; of points of a sweep in a folder per settings
MAX_NAMED = 12
ADD_LABEL = "add_label"  # work that is not a stage of dvc.yaml


class Gap(NamedTuple):
    """A record that MLflow lacks, and the remedy."""

    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}"


def keep(root: Path, stage: str, names: Sequence[str], cause: str, settings: str) -> Gap:
    """Remember what a stage could not log, until `clear`; a point of a sweep has a record of its own.

    settings: what the point's settings are known by, also once `dvc exp apply` has made them the project's.
    """
    content = {
        "what": some(names, MAX_NAMED),
        "cause": cause,
        "experiment": os.environ.get("DVC_EXP_NAME", ""),
    }
    path = root / FOLDER / ("" if is_own_folder(root) else settings) / f"{stage}.json"
    write_json(path, content)
    return _gap(root, [path])


def clear(root: Path, stage: str, settings: str) -> None:
    """Forget what a stage could not log: with these settings and, in the project itself, in its last run."""
    for folder in {settings, "" if is_own_folder(root) else settings}:
        (root / FOLDER / folder / f"{stage}.json").unlink(missing_ok=True)


def gaps(root: Path) -> Iterator[Gap]:
    """Return what MLflow lacks: a line per stage of the project's last runs, and a line per point of a sweep."""
    for path in sorted((root / FOLDER).glob("*.json")):
        yield _gap(root, [path])
    for folder in sorted({path.parent for path in (root / FOLDER).glob("*/*.json")}):
        in_order = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)  # as the stages ran
        yield _gap(root, in_order)


def _gap(root: Path, paths: Sequence[Path]) -> Gap:
    contents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    stage, content = next(iter(contents.items()))
    experiment, folder = content["experiment"], paths[0].parent.relative_to(root)
    where = f" in the experiment {experiment}" if experiment else ""
    lacking = f"of {stage}{where} {content['what']}" if len(paths) == 1 else f"parts of {', '.join(contents)}{where}"
    text = f"NOT RECORDED: MLflow lacks {lacking} ({content['cause']})"
    record = f"dvc repro --force --single-item {' '.join(contents)}"
    if list(contents) == [ADD_LABEL]:
        return Gap(text, "the same `tailorset add-label` again registers it")
    if folder == FOLDER:
        return Gap(text, f"`{record}` records it")
    return Gap(text, f"`dvc exp apply {experiment} && {record}` records it, `rm -r {folder}` forgets it")
