"""A place to run the pipeline's stages with other settings, and a store that runs none of them twice.

A product is kept under the fingerprint of its stage (settings, inputs, code), which names resume folders as well.
Points that agree on it share it, whatever else they differ in; a kill loses the unfinished stage only, which resumes.
"""

from __future__ import annotations

import os
import runpy
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from tailorset.project.definition import fingerprint, stage_definition
from tailorset.project.params import read_yaml
from tailorset.storage.files import atomic_output

STAGES = (
    "prepare_dataset",
    "write_prompts",
    "tune_unet",
    "tune_text_encoder",
    "generate_images",
    "filter_images",
    "validate_data",
    "train_classifier",
    "fit_thresholds",
    "score_baselines",
    "evaluate",
)
CODE = ["src/tailorset", "dvc.yaml", "params.yaml"]
SHARED = ("src", "pipeline", "dvc.yaml", "models/foundation", "data/labels")


class Workspace:
    """A folder that looks like the project, with its own params.yaml."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.store = root / ".work" / "ladder" / "products"
        code_at_start(root)
        shutil.rmtree(folder, ignore_errors=True)
        for name in SHARED:
            link(folder / name, root / name)

    def run(self, stage: str, settings: Mapping[str, Any]) -> None:
        """Put the products of a stage in place, running it unless the store has them."""
        settings = {**settings, "num_processes": 1}  # more would start this very program again
        (self.folder / "params.yaml").write_text(yaml.safe_dump(merged(read_yaml(self.root / "params.yaml"), settings)))
        with working_in(self.folder):
            kept = self.store / stage / fingerprint(stage_definition(stage))
            outputs = stage_outputs(stage)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{kept}.lock"):
                if not kept.exists():
                    for output in outputs:
                        output.unlink(missing_ok=True)
                    runpy.run_path(f"pipeline/{stage}.py", run_name="__main__")
                    if code_now(self.root) != code_at_start(self.root):
                        raise RuntimeError(
                            "code or params.yaml changed while the ladder ran: its products would be neither the old"
                            " code's nor the new one's; start the ladder again"
                        )
                    with atomic_output(kept) as partial:
                        for output in outputs:
                            move(output, partial / output)
            for output in outputs:
                link(output.absolute(), kept / output)


def code_now(root: Path) -> str:
    """Digest of all files on disk that a point depends on."""
    with working_in(root):
        return fingerprint({"params": {}, "deps": CODE + [f"pipeline/{stage}.py" for stage in STAGES]})


@cache
def code_at_start(root: Path) -> str:
    """Return the digest when this process first asked: that of the code it has loaded."""
    return code_now(root)


def stage_outputs(stage: str) -> list[Path]:
    """outs, metrics and plots of a stage of dvc.yaml."""
    definition = read_yaml("dvc.yaml")["stages"][stage]
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in definition.get(kind, [])]
    return [Path(next(iter(entry)) if isinstance(entry, Mapping) else entry) for entry in entries]


def merged(params: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """params with each dotted key of `settings` set."""
    for key, value in settings.items():
        *blocks, last = key.split(".")
        place = params
        for block in blocks:
            place = place[block]
        place[last] = value
    return params


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)


def link(place: Path, target: Path) -> None:
    """Make a symbolic link at `place`, replacing one that exists."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)
