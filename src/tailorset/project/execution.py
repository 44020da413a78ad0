"""The execution of the pipeline that a stage belongs to, and its name: an experiment of DVC, or one `dvc repro`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from tailorset.messages import some
from tailorset.project.layout import PARAMS
from tailorset.project.params import flatten

MAX_CHANGED, MAX_VALUE_CHARS = 3, 40  # settings in a name


def execution_key() -> str:
    """Identify the execution that this process belongs to; the key is the same in all its stages.

    A DVC experiment is known by its name. For a plain `dvc repro` it is the DVC process above this one (its id and
    start time), so that the next `dvc repro` is another execution; a stage run by hand is an execution of its own.
    Other settings are another execution, also under the same name: MLflow keeps one value per parameter of a run.
    """
    settings = settings_digest()
    if name := os.environ.get("DVC_EXP_NAME"):
        return f"{name}@{os.environ.get('DVC_EXP_BASELINE_REV', '')}@{settings}"
    process = _dvc_process() or psutil.Process()
    return f"{process.pid}-{process.create_time():.2f}@{settings}"


def settings_digest() -> str:
    """Digest of the settings of params.yaml, whatever its folder and layout."""
    return hashlib.sha256(json.dumps(_settings(), sort_keys=True, default=str).encode()).hexdigest()[:12]


def execution_name() -> str:
    """Say how the settings differ from the committed ones, then the experiment or the commit.

    `filter_images.threshold=0.7 (dusty-alga)`, `labels coco (run-0fb7c036)`, or `run-0fb7c036` if they are committed.
    """
    name = os.environ.get("DVC_EXP_NAME") or f"run-{git_revision()[0][:8]}"
    changed = changed_settings(_settings(), _committed_settings())
    return f"{changed} ({name})" if changed else name


def changed_settings(now: Mapping[str, Any], committed: Mapping[str, Any]) -> str:
    """Return the first settings that differ, as KEY=VALUE; if the label file differs, only its name."""
    changed = {key: value for key, value in now.items() if committed and committed.get(key) != value}
    if "label_space" in changed:
        return f"labels {Path(str(changed['label_space'])).stem}"
    return some([f"{key}={str(value)[:MAX_VALUE_CHARS]}" for key, value in changed.items()], MAX_CHANGED)


def git_revision() -> tuple[str, bool]:
    """The commit that is checked out here, and whether the tree differs from it in anything but what a run writes."""
    status = ["git", "status", "--porcelain", "--", ".", ":!dvc.lock", ":!reports"]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changes = subprocess.run(status, capture_output=True, text=True, check=False)
    return (commit.stdout.strip() if commit.returncode == 0 else "uncommitted"), bool(changes.stdout.strip())


def _settings() -> dict[str, Any]:
    return _flat(PARAMS.read_text(encoding="utf-8")) if PARAMS.exists() else {}


def _committed_settings() -> dict[str, Any]:
    """Return the settings of the commit that an experiment starts from, or that is checked out; {} without one."""
    revision = os.environ.get("DVC_EXP_BASELINE_REV") or "HEAD"
    command = ["git", "show", f"{revision}:./{PARAMS}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return _flat(shown.stdout) if shown.returncode == 0 else {}


def _flat(text: str) -> dict[str, Any]:
    content = yaml.safe_load(text)
    return flatten(content) if isinstance(content, Mapping) else {}


def _dvc_process() -> psutil.Process | None:
    for process in psutil.Process().parents():
        with contextlib.suppress(psutil.Error):
            if _is_dvc(process.cmdline()):
                return process
    return None


def _is_dvc(command: Sequence[str]) -> bool:
    """Check for `dvc` or `tailorset`, also as a script or module of Python; a folder may be called like that too."""
    words = [word for word in command if not word.startswith("-")]
    program = words[1:2] if words and Path(words[0]).name.startswith("python") else words[:1]
    return any(Path(word).name in ("dvc", "dvc.exe", "tailorset") for word in program)
