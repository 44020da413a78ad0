from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailorset.project import busy
from tailorset.project.busy import Others, busiest, cores_used_by_others, yield_to_others


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that this process was replaced by."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, command: commands.append(command))
    monkeypatch.delenv(busy.POLICY, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(busy, "cores_used_by_others", lambda seconds: 1.2)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return commands


@pytest.fixture
def computing() -> Iterator[subprocess.Popen[bytes]]:
    """Another program that computes."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield process
    process.kill()
    process.wait()


def test_beside_a_program_that_computes_threads_sleep_while_they_wait(
    started: list[list[str]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["stage.py"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "stage.py"])
    yield_to_others()
    assert started == [[sys.executable, "-X", "dev", "stage.py"]]
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "Other programs use 1.2 of" in caplog.text


def test_a_process_that_only_runs_the_script_is_not_replaced(started: list[list[str]], tmp_path: Path) -> None:
    """Once a test run beside another program ended at the first stage it ran, with status 0."""
    script = tmp_path / "stage.py"
    script.write_text("from tailorset.project.busy import yield_to_others\nyield_to_others()\n")
    runpy.run_path(str(script), run_name="__main__")
    assert not started


def test_alone_threads_spin(started: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", sys.argv)
    monkeypatch.setattr(busy, "cores_used_by_others", lambda seconds: 0.2)
    yield_to_others()
    assert not started


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("OMP_NUM_THREADS", "1")])
def test_what_the_environment_says_stays(
    started: list[list[str]], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", sys.argv)
    os.environ[name] = value
    yield_to_others()
    assert not started
    assert os.environ[name] == value


def test_another_program_is_seen(computing: subprocess.Popen[bytes]) -> None:
    assert cores_used_by_others(1) > 0.1  # of a core that it may share with others
    assert busiest(0.5)


def test_own_work_is_not_taken_for_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([(0.0, 100.0, 10.0), (10.0, 118.0, 25.0)])
    monkeypatch.setattr(Others, "_times", staticmethod(lambda: next(times)))
    assert Others().cores() == pytest.approx(0.3)  # 18 seconds of all programs, 15 of them our own
