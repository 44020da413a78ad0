"""A small project whose stages are finished once, and the products that a fault must not change."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tailorset.storage.checksums import file_digest
from tests.small_project import environment, make_small_project, run

LARGER = {
    "tune_text_encoder": {
        "num_updates": 24,
        "batch_size": 2,
        "checkpoint_every": 2,
        "evaluate_every": 6,
        "patience": 9,
        "held_out_prompts": 6,
    },
    "generate_images": {"images_per_label": 60, "max_images": 320, "shard_size": 16, "batch_size": 16},
    "train_classifier": {"num_epochs": 4, "held_out_share": 0.3},
}


class StageRuns(NamedTuple):
    """A stage's script in a project where all stages before it are finished, and its products there."""

    folder: Path
    name: str
    expected: dict[str, str]
    seconds: float  # from its resume folder to its end

    @property
    def work(self) -> Path:
        return self.folder / ".work" / self.name

    def start(self, **options: Any) -> subprocess.Popen[str]:
        """The script in its own process."""
        command = [sys.executable, f"pipeline/{self.name}.py"]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment(),
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **options,
        )

    def wait_for_work(self, process: subprocess.Popen[str]) -> None:
        """Wait until its imports are over and it works."""
        while not (self.work.is_dir() and any(self.work.iterdir())):
            assert process.poll() is None, process.communicate()[1][-3000:]
            time.sleep(0.01)

    def finish(self) -> None:
        """Run it to its end."""
        process = self.start()
        errors = process.communicate()[1]
        assert process.returncode == 0, errors[-3000:]

    def products(self) -> dict[str, str]:
        return digests(self.folder, outputs(self.folder, self.name))

    def remove_products(self) -> None:
        for path in outputs(self.folder, self.name):
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)


def outputs(folder: Path, stage: str) -> list[Path]:
    """Outs, metrics and plots of a stage."""
    definition = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"][stage]
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in definition.get(kind, [])]
    return [folder / (next(iter(entry)) if isinstance(entry, dict) else entry) for entry in entries]


def digests(folder: Path, paths: list[Path]) -> dict[str, str]:
    """sha256 of every file."""
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return {str(file.relative_to(folder)): file_digest(file) for file in files if file.is_file()}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after `dvc repro train_classifier`."""
    folder = tmp_path_factory.mktemp("faults")
    make_small_project(folder, **LARGER)
    run(folder, "dvc", "repro", "train_classifier")
    return folder


@pytest.fixture(scope="session")
def runs_of(finished: Path) -> Callable[[str], StageRuns]:
    """A stage of that project, measured once."""
    return cache(lambda name: measured(finished, name))


def measured(folder: Path, name: str) -> StageRuns:
    """A finished stage, run once more without a fault to measure its duration."""
    stage = StageRuns(folder, name, {}, 0.0)
    expected = stage.products()
    process = stage.start()
    stage.wait_for_work(process)
    start = time.monotonic()
    errors = process.communicate()[1]
    assert process.returncode == 0, errors[-3000:]
    assert stage.products() == expected  # the same seed twice
    return stage._replace(expected=expected, seconds=time.monotonic() - start)


@contextmanager
def intact(stage: StageRuns) -> Iterator[None]:
    """After any fault inside the context, the stage makes the same products."""
    stage.remove_products()
    yield
    stage.finish()
    assert stage.products() == stage.expected
    assert not any(stage.work.iterdir())
