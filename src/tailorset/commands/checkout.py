"""Needs of DVC in the project's folder: a git repository that tracks what experiments use, and its own queue."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tailorset.commands.findings import Finding

QUEUE = Path(".dvc/tmp/exps/celery/broker/in")
COPIES = "`dvc exp run --queue` and `--temp`"
COMMIT = "`git add --all && git commit --message start`"


def checkout(root: Path, needed: Iterable[Path]) -> Iterator[Finding]:
    """List what git lacks for runs and experiments; needed: files and folders that the settings name."""
    if not shutil.which("git"):
        yield Finding("error", "git", "git is not installed, and DVC needs it", "install git")
        return
    asked = _git(root, "rev-parse", "--is-shallow-repository")
    reason = (asked.stderr.strip().splitlines() or [""])[0]
    if "not a git repository" in reason:
        text = f"{root.resolve()} is not a git repository, as a source ZIP is not, and DVC needs one"
        yield Finding("error", "git", text, f"`git init && {COMMIT[1:]}")
        return
    if asked.returncode:
        remedy = "`git status` shows what to do"
        yield Finding("warning", "git", f"git does not read this folder ({reason}), so no `dvc exp run` works", remedy)
        return
    tracked = set(_git(root, "ls-files", "-z").stdout.split("\0"))
    if "dvc.yaml" not in tracked or _git(root, "rev-parse", "--verify", "HEAD").returncode:
        yield Finding("warning", "git", "the project is not committed to git, so no `dvc exp run` works", COMMIT)
        return
    if asked.stdout.strip() == "true":
        text = f"this clone has no history (`--depth`): DVC drops the results of {COPIES} without a word"
        yield Finding("warning", "git", text, "`git fetch --unshallow`")
    yield from _untracked(needed, root, tracked)


def _untracked(needed: Iterable[Path], root: Path, tracked: set[str]) -> Iterator[Finding]:
    """List files that are in the project's folder, or relative to it, and would be missing in a copy."""
    there = {os.path.normpath(path) for path in needed if not path.is_absolute() and (root / path).exists()}
    lost = sorted(name for name in there - tracked if not any(file.startswith(f"{name}/") for file in tracked))
    files = [name for name in lost if (root / name).is_file()]
    folders = [name for name in lost if name not in files]
    remedies = {f"`git add {shlex.join(files)}`": files, "write whole paths, from the root, in params.yaml": folders}
    for remedy, names in remedies.items():
        if names:
            text = f"not in git, so {COPIES} run in copies without: {', '.join(names)}"
            yield Finding("warning", "git", text, remedy)


def foreign_queue(root: Path) -> Iterator[Finding]:
    """Yield experiments that were queued in another folder: a worker here would run them there."""
    folders = {task[0][0]["dvc_root"] for task in map(_task, (root / QUEUE).glob("*.celery.msg")) if task}
    for folder in sorted(folders - {str(root.resolve())}):
        text = f"{root.resolve()} holds experiments that were queued in {folder} and would run there"
        yield Finding("error", "queue", text, "`dvc queue remove --all`, and queue them again")


def _task(message: Path) -> list[list[dict[str, str]]]:
    """Return the arguments of a queued experiment; [] for another kind of message, or one that is gone."""
    try:
        content = json.loads(message.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    is_experiment = content["headers"]["task"].endswith(".run_exp")
    return json.loads(base64.b64decode(content["body"])) if is_experiment else []


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments], cwd=root, env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, check=False
    )
