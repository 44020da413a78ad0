"""The comparison of a label that is added later with one that was there from the start, in a small form."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from add_label import Project, compare, label_files

from tailorset.project.params import read_yaml
from tests.small_project import ROOT, SMALL

LABELS = {
    "name": "three",
    "labels": [{"name": name, "seen": name == "ball"} for name in ("cup", "fish", "ball")],
    "confusable": [["cup", "ball"], ["fish", "ball"]],
}


def test_the_label_comes_last_or_is_left_out_with_its_pairs() -> None:
    whole, rest = label_files(LABELS, "cup")
    assert [label["name"] for label in whole["labels"]] == ["fish", "ball", "cup"]
    assert whole["confusable"] == LABELS["confusable"]
    assert [label["name"] for label in rest["labels"]] == ["fish", "ball"]
    assert rest["confusable"] == [["fish", "ball"]]


@pytest.mark.slow  # two small runs of the pipeline, and an addition: some minutes
@pytest.mark.timeout(1800)
def test_a_label_is_added_and_measured_next_to_one_trained_anew(tmp_path: Path) -> None:
    settings = read_yaml(ROOT / "params.yaml")
    for block, values in SMALL.items():
        settings[block] |= values
    settings["prepare_dataset"] |= {"num_train": 600, "num_test": 400}
    settings["tune_text_encoder"]["num_updates"] = 0
    settings["generate_images"] |= {"images_per_label": 24, "max_images": 240, "negative_images": 24}
    rows = compare("fish", settings, tmp_path)
    assert [row[0] for row in rows[:4]] == ["chance", "raw CLIP", "added later", "trained anew, with all labels"]
    chance, _, added, anew = (float(row[1]) for row in rows[:4])
    assert chance < min(added, anew)
    assert float(rows[-1][0].split()[8].rstrip(";")) <= 1e-6


def test_a_folder_of_other_settings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its times and models would pass for those of these settings."""
    monkeypatch.setattr("subprocess.run", lambda *command, **options: SimpleNamespace(returncode=0))
    Project(tmp_path, {"seed": 0}, LABELS).run("evaluate")
    assert Project(tmp_path, {"seed": 0}, LABELS).run("evaluate") < 60
    with pytest.raises(ValueError, match="name another --folder"):
        Project(tmp_path, {"seed": 1}, LABELS).run("evaluate")
