"""Faults of the git repository are named before DVC fails on them, or drops results silently."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from tailorset.commands.checkout import QUEUE, checkout, foreign_queue
from tests.small_project import IDENTITY


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--allow-empty", "--message", "all")


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "models" / "tracked").mkdir(parents=True)
    for name in ("dvc.yaml", "data/labels.yaml", "models/tracked/weights"):
        (folder / name).touch()
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def test_a_whole_clone_has_nothing_to_tell(committed: Path) -> None:
    assert not list(checkout(committed, [Path("data/labels.yaml"), Path("models/tracked"), Path("models/lost")]))


def test_a_source_zip_is_an_error_with_a_remedy_that_helps(committed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["rm", "-r", ".git"], cwd=committed, check=True)
    (found,) = checkout(committed, [])
    assert (found.status, "source ZIP" in found.text) == ("error", True)
    assert str(committed) in found.text
    for variable in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{variable}_NAME", "test")
        monkeypatch.setenv(f"GIT_{variable}_EMAIL", "test@example.org")
    subprocess.run(found.remedy.strip("`"), shell=True, cwd=committed, check=True)
    assert not list(checkout(committed, []))


def test_a_project_inside_another_repository_or_without_a_commit_is_told(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "dvc.yaml").touch()
    for prepare in (lambda: None, lambda: git(inner, "init", "--quiet"), lambda: git(inner, "add", "dvc.yaml")):
        prepare()
        (found,) = checkout(inner, [])
        assert (found.status, "not committed to git" in found.text) == ("warning", True)
    commit(inner)
    assert not list(checkout(inner, []))


def test_a_shallow_clone_is_told_with_the_remedy(committed: Path, tmp_path: Path) -> None:
    commit(committed)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "1", committed.as_uri(), str(clone))
    (found,) = checkout(clone, [])
    assert (found.status, "drops the results" in found.text) == ("warning", True)
    subprocess.run(found.remedy.strip("`"), shell=True, cwd=clone, check=True)
    assert not list(checkout(clone, []))


def test_what_a_copy_would_lack_is_named(committed: Path) -> None:
    (committed / "data/mine.yaml").touch()
    (committed / "models" / "mine").mkdir()
    (committed / ".gitignore").write_text("/models/*\n")
    labels, folder = checkout(committed, [Path("./data/mine.yaml"), Path("models/mine"), Path("/somewhere/else")])
    assert (labels.status, labels.remedy) == ("warning", "`git add data/mine.yaml`")
    assert folder.text.endswith("run in copies without: models/mine")
    assert "whole paths" in folder.remedy
    git(committed, "add", "data/mine.yaml")
    assert len(list(checkout(committed, [Path("data/mine.yaml"), Path("models/mine")]))) == 1


def test_experiments_that_were_queued_in_the_original_would_run_there(committed: Path, tmp_path: Path) -> None:
    (committed / QUEUE).mkdir(parents=True)
    tasks = {"run_exp": [[{"dvc_root": str(committed)}]], "cleanup_exp": [["x"]]}
    for number, (task, body) in enumerate(tasks.items()):
        content = {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "headers": {"task": f"dvc.repo.experiments.queue.tasks.{task}"},
        }
        (committed / QUEUE / f"{number}.celery.msg").write_text(json.dumps(content))
    assert not list(foreign_queue(committed))
    copy = committed.rename(tmp_path / "copy")
    (found,) = foreign_queue(copy)
    assert found.status == "error"
    assert str(committed) in found.text
    assert str(copy) in found.text
    assert "dvc queue remove --all" in found.remedy
