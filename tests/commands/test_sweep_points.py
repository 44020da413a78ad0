"""Points of a sweep: what is wrong with them before they are queued, and why they failed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tailorset import cli
from tailorset.commands.sweep import failed_points, point_problems
from tests.small_project import run

ROOT = Path(__file__).resolve().parents[2]


def test_each_point_is_checked_as_a_run_would(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "models").mkdir()
    (project / "models" / "foundation").symlink_to(ROOT / "models" / "foundation")
    before = Path("params.yaml").read_bytes()
    found = dict(point_problems(["filter_images.threshold=0.3,2", "seed=1"]))
    assert found["filter_images.threshold=0.3, seed=1"] == ""
    assert "threshold: Input should be less than 1, not 2" in found["filter_images.threshold=2, seed=1"]
    for setting, words in (
        ("filter_images.treshold=1", "Did you mean 'filter_images.threshold'?"),
        ("sead=1", "Did you mean 'seed'?"),
        ("evaluate.top_k.x=1", "top_k"),
        ("write_prompts.max_attempts=0", "max_template_share is 0.5: set it to 1"),
        ("clip.judge.model=local-dir:nowhere", "there is no folder nowhere"),
        ("generate_images.max_images=3", "max_images is 3"),
    ):
        ((_, problem),) = point_problems([setting])
        assert words in problem
    with pytest.raises(ValueError, match="write KEY=VALUE"):
        list(point_problems(["seed=["]))
    assert Path("params.yaml").read_bytes() == before
    monkeypatch.setenv("COLUMNS", "200")
    answer = CliRunner().invoke(cli.app, ["check", "-S", "filter_images.threshold=0.3,2"])
    assert answer.exit_code == 1
    assert "ok: filter_images.threshold=0.3" in answer.output
    assert "NOT ok: filter_images.threshold=2: params.yaml is not valid" in answer.output


@pytest.mark.timeout(300)
def test_a_failed_point_names_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stage.py").write_text(
        "from tailorset.failures import explain_failures\n"
        "from tailorset.project.params import load_params\n"
        "explain_failures('filter_images'); load_params()\n"
    )
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").write_text(
        "stages: {filter_images: {cmd: python stage.py, deps: [stage.py], params: [filter_images]}}\n"
    )
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "dvc", "init", "--quiet")
    run(tmp_path, "git", "add", "--all")
    run(tmp_path, "git", "-c", "user.name=a", "-c", "user.email=a@b.org", "commit", "--quiet", "--message", "all")
    monkeypatch.chdir(tmp_path)
    assert list(failed_points()) == []
    run(tmp_path, "dvc", "exp", "run", "--queue", "--name", "too-high", "-S", "filter_images.threshold=2")
    run(tmp_path, "dvc", "queue", "start")
    run(tmp_path, "timeout", "120", "sh", "-c", "until dvc queue status | grep -q Failed; do sleep 1; done")
    ((name, cause),) = failed_points()
    assert name == "too-high"
    assert cause.startswith("filter_images: params.yaml is not valid")
    assert "threshold: Input should be less than 1, not 2" in cause
    run(tmp_path, "dvc", "queue", "stop")
