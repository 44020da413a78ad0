"""Kills, full disks and two runs at once, against the real stages: nothing is lost, doubled or half written."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tailorset.generation.shard_store import ShardStore
from tests.faults.stage_runs import StageRuns, fill_the_disk, finished_shards, intact, kill_at_random_moments
from tests.small_project import environment

RunsOf = Callable[[str], StageRuns]


def thorough(test: Callable[..., None]) -> Callable[..., None]:
    """Mark of tests that only `make faults` runs."""
    return pytest.mark.faults(pytest.mark.timeout(3600)(test))


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
