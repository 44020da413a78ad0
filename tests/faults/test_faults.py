"""Kills, full disks and two runs at once, against the real stages: nothing is lost, doubled or half written."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tailorset.generation.shard_store import ShardStore
from tests.faults.conftest import StageRuns, digests, intact, measured, outputs
from tests.small_project import environment, make_small_project, run

RunsOf = Callable[[str], StageRuns]


def thorough(test: Callable[..., None]) -> Callable[..., None]:
    """Mark of tests that only `make faults` runs."""
    return pytest.mark.faults(pytest.mark.timeout(3600)(test))


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


@pytest.mark.timeout(1800)
def test_one_stage_stands_a_kill_and_a_full_disk(tmp_path: Path) -> None:
    """`make faults` on a small scale, so that it works when it is needed."""
    make_small_project(tmp_path, generate_images={"shard_size": 16, "batch_size": 16})
    run(tmp_path, "dvc", "repro", "generate_images")
    stage = measured(tmp_path, "generate_images")
    kill_at_random_moments(stage, 1)
    fill_the_disk(stage, 0.4)


@thorough
@pytest.mark.parametrize(
    ("name", "kills"),
    [("generate_images", 20), ("tune_text_encoder", 10), ("filter_images", 10), ("train_classifier", 10)],
)
def test_kill_9_at_random_moments(runs_of: RunsOf, name: str, kills: int) -> None:
    stage = runs_of(name)
    kill_at_random_moments(stage, kills)
    if name == "generate_images":
        ids = pd.read_parquet(stage.folder / "data/synthetic/manifest.parquet")["image_id"]
        assert ids.is_unique


@thorough
def test_sigterm_ends_generation_within_ten_seconds_and_keeps_whole_shards(runs_of: RunsOf) -> None:
    stage = runs_of("generate_images")
    with intact(stage):
        process = stage.start()
        while len(finished_shards(stage)) < 2:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
        assert process.returncode != 0
        kept = finished_shards(stage)
        folder = next(stage.work.iterdir())
        for seal in kept:
            assert ShardStore(folder).finished_rows(seal.removesuffix(".sha256"))


FULL = [
    ("generate_images", 0.02),
    ("generate_images", 0.4),
    ("generate_images", 0.95),
    ("tune_text_encoder", 0.02),
    ("tune_text_encoder", 0.9),
    ("filter_images", 0.1),
    ("filter_images", 0.9),
    ("train_classifier", 0.01),
    ("train_classifier", 0.3),
    ("train_classifier", 0.9),
]


@thorough
@pytest.mark.parametrize(("name", "share"), FULL)
def test_a_disk_that_is_full(runs_of: RunsOf, name: str, share: float) -> None:
    fill_the_disk(runs_of(name), share)


@thorough
def test_two_runs_of_a_stage_at_once(runs_of: RunsOf) -> None:
    stage = runs_of("generate_images")
    with intact(stage):
        processes = [stage.start(), stage.start()]
        answers = [process.communicate()[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], answers
        assert sum("waiting until it is done" in answer for answer in answers) == 1
        assert stage.products() == stage.expected


@thorough
def test_two_dvc_repro_at_once(runs_of: RunsOf, finished: Path) -> None:
    stage = runs_of("filter_images")
    with intact(stage):
        both = [
            subprocess.Popen(
                ["dvc", "repro", "filter_images"],
                cwd=finished,
                env=environment(),
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for _ in range(2)
        ]
        answers = [process.communicate()[0] for process in both]
        assert 0 in [process.returncode for process in both], answers
        refused = [answer for process, answer in zip(both, answers, strict=True) if process.returncode]
        assert all("lock" in answer for answer in refused), refused
        assert stage.products() == stage.expected
