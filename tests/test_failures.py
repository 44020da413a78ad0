from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import tailorset  # as every script of pipeline/ does
from tailorset.records import LabelSpace

def work():
    {statement}

work()
"""


def run_script(folder: Path, statement: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A stage's script that ends in this statement."""
    (folder / "pipeline").mkdir(exist_ok=True)
    (folder / "pipeline" / "draw_cups.py").write_text(SCRIPT.format(statement=statement))
    command = [sys.executable, "pipeline/draw_cups.py"]
    return subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=120
    )


def test_an_error_is_one_block_and_its_traceback_is_in_a_file(tmp_path: Path) -> None:
    answer = run_script(tmp_path, 'raise ValueError("17 cups are too many: choose 1 to 12")')
    assert answer.returncode == 1
    assert answer.stderr.strip().splitlines() == [
        "FAILED: draw_cups",
        "  17 cups are too many: choose 1 to 12",
        "  where:      pipeline/draw_cups.py:6 (work), pipeline/draw_cups.py:8 (<module>)",
        "  traceback:  the end of .work/errors.log",
        "  What is finished is kept: once this is mended, run the same command again to go on.",
    ]
    log = (tmp_path / ".work" / "errors.log").read_text()
    assert "Traceback" in log
    assert log.rstrip().endswith("ValueError: 17 cups are too many: choose 1 to 12")


@pytest.mark.parametrize(
    ("statement", "kind"),
    [('{}["cup"]', "KeyError"), ('LabelSpace(name="cups")', "pydantic_core._pydantic_core.ValidationError")],
)
def test_an_error_of_others_code_names_its_kind_and_our_line(tmp_path: Path, statement: str, kind: str) -> None:
    answer = run_script(tmp_path, statement)
    assert f"  {kind}: " in answer.stderr
    assert "pipeline/draw_cups.py:6 (work)" in answer.stderr


def test_ctrl_c_says_that_work_is_kept(tmp_path: Path) -> None:
    unignored = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell ignores it in background jobs
    answer = run_script(tmp_path, f"import os, signal; {unignored}; os.kill(os.getpid(), signal.SIGINT)")
    assert answer.returncode == -signal.SIGINT
    assert answer.stderr.strip().splitlines() == [
        "draw_cups was interrupted. What is finished is kept: run the same command again to go on."
    ]


def test_a_log_that_cannot_be_written_hides_no_error(tmp_path: Path) -> None:
    (tmp_path / ".work").write_text("a file where the folder should be")
    answer = run_script(tmp_path, 'raise ValueError("no cups")')
    assert "no cups" in answer.stderr
    assert "not kept" in answer.stderr


def test_dvcs_temporary_copies_write_to_the_log_of_the_project(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    run_script(copy, 'raise ValueError("no cups")', DVC_ROOT=str(tmp_path))
    assert "no cups" in (tmp_path / ".work" / "errors.log").read_text()
