"""`tailorset run`: what DVC runs, with little said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.small_project import environment, run


def tailorset_run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tailorset.cli", "run"]
    env = environment(OMP_NUM_THREADS="1")
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC project of one stage, whose script is `stage.py`."""
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "dvc", "init", "--quiet")
    stage = {"cmd": "python stage.py", "deps": ["stage.py"], "outs": ["made"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": stage}}))
    return tmp_path


def test_only_the_stage_speaks(project: Path) -> None:
    (project / "stage.py").write_text("print('hello'); open('made', 'w').write('cup')")
    answer = tailorset_run(project)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "hello\n", "")
    again = tailorset_run(project)
    assert (again.returncode, again.stdout, again.stderr) == (0, "Every stage is up to date.\n", "")


def test_what_a_failed_stage_says_is_the_last_word(project: Path) -> None:
    (project / "stage.py").write_text("import sys; sys.exit('no cups')")
    answer = tailorset_run(project)
    assert (answer.returncode, answer.stderr) == (1, "no cups\n")


def test_what_dvc_itself_refuses_is_said(project: Path) -> None:
    answer = tailorset_run(project)
    assert answer.returncode == 1
    assert "stage.py" in answer.stderr
    assert "Traceback" not in answer.stderr
