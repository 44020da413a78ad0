"""A copy of the project with small settings, and how to run commands in it: for tests of whole stages and pipelines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org")
SMALL = {
    "prepare_dataset": {"num_train": 160, "num_val": 60, "num_test": 80},
    "write_prompts": {"prompts_per_pair": 2},
    "tune_unet": {"num_updates": 3, "batch_size": 2, "num_photos": 40},
    "tune_text_encoder": {
        "num_updates": 2,
        "batch_size": 2,
        "num_inference_steps": 4,
        "stop_after": [2, 3],
        "held_out_prompts": 6,
    },
    "generate_images": {
        "images_per_label": 6,
        "max_images": 96,
        "negative_images": 12,
        "quota_threshold": 0.5,
        "num_inference_steps": 6,
        "batch_size": 32,
        "shard_size": 32,
    },
    "filter_images": {"threshold": 0.5},
    "validate_data": {"min_images_per_label": 1},
    "train_classifier": {"num_epochs": 2, "held_out_share": 0.3},
}


def environment(**variables: str) -> dict[str, str]:
    """This process's, with this environment's programs first on the path."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | variables


def run(folder: Path, *command: str, **variables: str) -> str:
    """Output of a command in a folder."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(**variables),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def make_small_project(folder: Path, **changes: Mapping[str, Any]) -> None:
    """A copy of what git tracks, with small settings and `changes` of params.yaml's blocks, committed."""
    for name in run(ROOT, "git", "ls-files").splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/", "reports/")) and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for block, values in SMALL.items():
        params[block] |= values | changes.get(block, {})
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", "--all")
    run(folder, "git", *IDENTITY, "commit", "--quiet", "--message", "small")
