"""A stage's script that is run, killed and kept from writing, and the products that no fault may change."""

from __future__ import annotations

import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tailorset.storage.checksums import file_digest
from tests.small_project import environment


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


def finished_shards(stage: StageRuns) -> dict[str, int]:
    """Sealed shards in the resume folder, with the time they were written."""
    return {seal.name: seal.stat().st_mtime_ns for seal in stage.work.glob("*/*.sha256")}


def kill_at_random_moments(stage: StageRuns, kills: int) -> None:
    """kill -9 this number of runs in turn; each resumes where the previous one was."""
    moments, before = random.Random(0), {}
    with intact(stage):
        while kills:
            process = stage.start()
            stage.wait_for_work(process)
            try:
                process.wait(moments.uniform(0, stage.seconds))
                assert process.returncode == 0, process.communicate()[1][-3000:]
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills -= 1
            if stage.products() == stage.expected:  # it came to its end before the kill
                stage.remove_products()
                before = {}
            else:
                after = finished_shards(stage)
                assert process.returncode != 0
                assert before.items() <= after.items()  # what was finished is neither lost nor drawn again
                before = after


def fill_the_disk(stage: StageRuns, share: float) -> None:
    """Run it with a limit on file size, a share of the largest file that it makes."""
    largest = max((stage.folder / path).stat().st_size for path in stage.expected)
    limit = max(1, int(share * largest))

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with intact(stage):
        process = stage.start(preexec_fn=bounded)
        errors = process.communicate()[1]
        assert process.returncode != 0
        assert "no room left to write" in errors, errors[-3000:]
        assert "run it again" in errors
        assert "Traceback" not in errors
        visible = digests(stage.folder, [path for path in outputs(stage.folder, stage.name) if path.name != "plots"])
        assert visible.items() <= stage.expected.items()  # whole, or not there
