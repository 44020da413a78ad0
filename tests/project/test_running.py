from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from tailorset.commands.status import stages_line
from tailorset.project.running import PROGRESS, last_durations, place, progress_shown, running_stages
from tailorset.storage.files import write_json

STAGES = ("prepare", "draw", "train")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three stages in dvc.yaml, and the resume folder of the second one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {name: {"cmd": "true"} for name in STAGES}}, sort_keys=False)
    )
    (tmp_path / ".work" / "draw" / "abc").mkdir(parents=True)
    return tmp_path


def remember(root: Path, **seconds: float) -> None:
    for name, value in seconds.items():
        write_json(root / ".work" / "durations" / f"{name}.json", {"seconds": value})


def test_status_during_a_run_says_what_runs_and_what_is_left(project: Path) -> None:
    remember(project, draw=300.0, train=600.0)
    with progress_shown("draw", project, project / ".work/draw/abc", is_main=True):
        line = "draw, stage 2 of 3, about 5 minutes left, about 15 minutes with the stages after it"
        assert stages_line() == f"running: {line}"
        assert running_stages(project) == [line]


@pytest.mark.parametrize("name", ["dvc.lock", "dvc.yaml"])
def test_a_file_of_dvc_that_a_merge_left_in_conflict_is_named(name: str, project: Path) -> None:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    (project / name).write_text("<<<<<<< HEAD\nschema: '2.0'\n")
    assert stages_line().startswith(f"unknown: './{name}' is invalid")


def test_dvc_at_work_between_two_stages_is_no_fault(project: Path) -> None:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    with Repo(str(project)).lock:
        assert stages_line() == "running: the next stage is about to start; ask again in some seconds"


def test_a_killed_stage_does_not_run(project: Path) -> None:
    path = project / ".work/draw/abc" / PROGRESS
    with progress_shown("draw", project, path.parent, is_main=True):
        content = json.loads(path.read_text())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for change in ({"pid": dead.pid}, {"created": content["created"] - 60}):  # nobody, and somebody else's number
        write_json(path, content | change)
        assert running_stages(project) == []


def test_only_a_run_from_the_start_tells_how_long_a_stage_takes(project: Path) -> None:
    work_dir = project / ".work/draw/abc"
    (work_dir / "shard").write_text("half")
    with progress_shown("draw", project, work_dir, is_main=True):
        pass
    assert last_durations(project) == {}
    (work_dir / "shard").unlink()
    (work_dir / PROGRESS).unlink()
    with progress_shown("draw", project, work_dir, is_main=True):
        pass
    assert last_durations(project)["draw"] < 60


def test_a_stage_that_runs_in_another_folder_tells_nothing_of_the_projects_own(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A point of a sweep or of the ladder has other settings; its resume folder is in the project all the same."""
    workspace = project / "workspace"
    workspace.mkdir()
    (workspace / "dvc.yaml").symlink_to(project / "dvc.yaml")
    monkeypatch.chdir(workspace)
    with progress_shown("draw", project, project / ".work/draw/abc", is_main=True):
        assert running_stages(project)
    assert last_durations(project) == {}


def test_the_time_of_the_stages_after_is_known_only_if_each_is(project: Path) -> None:
    assert place("prepare", project).after is None
    remember(project, draw=2.0)
    assert place("prepare", project).after is None
    remember(project, train=3.0)
    assert place("prepare", project).after == 5.0
    assert place("train", project).after == 0


def test_a_file_cut_off_by_the_end_of_its_stage_is_passed_over(project: Path) -> None:
    (project / ".work/draw/abc" / PROGRESS).write_text("")
    assert running_stages(project) == []
