"""The commands of docs/guides/sweeps.md, with DVC itself: what is queued has the settings that were meant."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tailorset.project.params import load_params
from tests.small_project import IDENTITY, ROOT, run

QUEUED = re.compile(r"dvc exp run --queue .*")


@pytest.fixture
def queue(project: Path) -> Path:
    """A committed project whose experiments can be queued."""
    run(project, "dvc", "init", "--quiet")
    run(project, "git", *IDENTITY, "commit", "--quiet", "--message", "dvc")
    return project


def guide_commands() -> list[str]:
    return QUEUED.findall((ROOT / "docs/guides/sweeps.md").read_text(encoding="utf-8"))


def test_the_guide_sweeps_a_number_and_a_key_of_a_map() -> None:
    assert len(guide_commands()) == 2
    assert any("+generate_images.weakness." in command for command in guide_commands())


@pytest.mark.parametrize("command", guide_commands())
def test_what_the_guide_queues_is_what_is_meant(queue: Path, command: str) -> None:
    run(queue, *shlex.split(command))
    (setting,) = [word for word in shlex.split(command) if "=" in word]
    key, _, values = setting.lstrip("+").partition("=")
    found = []
    for line in run(queue, "git", "reflog", "--format=%H", "refs/exps/celery/stash").split():
        text = subprocess.check_output(["git", "show", f"{line}:params.yaml"], cwd=queue, text=True)
        (queue / "queued.yaml").write_text(text)
        load_params(queue / "queued.yaml")  # as the stages will
        value = yaml.safe_load(text)
        for part in key.split("."):
            value = value[part]
        found.append(value)
    assert sorted(found) == [float(value) for value in values.split(",")]
