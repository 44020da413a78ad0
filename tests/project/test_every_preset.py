"""Every preset passes `tailorset use`, `tailorset check` and a dry run of DVC, with a hub that has what it names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tailorset import cli
from tailorset.project.definition import stage_names
from tailorset.project.params import load_params
from tailorset.project.presets import preset_names
from tests.fake_hub import FakeHub
from tests.small_project import environment, make_small_project

ROOT = Path(__file__).resolve().parents[2]
NEW = ("new", "folder_of_mine", "--labels", "mug, lamp, sofa", "--images", "photos", "--annotations", "folders")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed copy of the project, next to empty files and folders of the data sets that presets read."""
    folder = tmp_path_factory.mktemp("presets") / "project"
    make_small_project(folder)
    for part in ("train2014", "val2014"):
        (folder.parent / "coco" / part).mkdir(parents=True)
        annotations = folder.parent / "coco" / "annotations" / f"instances_{part}.json"
        annotations.parent.mkdir(exist_ok=True)
        annotations.write_text("{}")
    (folder.parent / "nus_wide" / "Flickr").mkdir(parents=True)
    for place in range(60):
        path = folder / "photos" / ("mug", "sofa", "lamp")[place % 3] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (4 * place, 0, 0)).save(path)
    return folder


def tailorset(*arguments: str) -> str:
    answer = CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "300"})
    assert answer.exit_code == 0, answer.output
    return answer.output


@pytest.mark.parametrize("preset", preset_names(ROOT / "presets"))
def test_a_preset_can_be_used_checked_and_planned_by_dvc(
    preset: str, copy: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    if preset == "folder":  # the base of what `tailorset new` writes
        tailorset(*NEW)
        subprocess.run(["git", "add", "data/labels"], check=True)
        preset = "folder_of_mine"
    tailorset("use", preset, "--force")
    hub.deliver(load_params())
    checked = tailorset("check")
    assert "settings, models and photos can be used" in checked
    assert "generated set: commercial use is allowed" in checked
    command = ["dvc", "repro", "--dry", "--force"]  # nothing was made yet
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    assert all(f"Running stage '{name}'" in done.stdout for name in stage_names(copy)), done.stdout
