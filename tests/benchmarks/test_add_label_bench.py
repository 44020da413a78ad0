"""The comparison of a label that is added later with one that was there from the start, in a small form."""

from __future__ import annotations

from pathlib import Path

import pytest
from add_label import compare, label_files

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
    settings["tune_text_encoder"]["num_updates"] = 0
    settings["generate_images"]["images_per_label"] = 12
    rows = compare("fish", settings, tmp_path)
    assert [row[0] for row in rows[:3]] == ["raw CLIP", "added later", "trained anew, with all labels"]
    precisions = [float(row[1]) for row in rows[:3]]
    assert all(0 < value <= 100 for value in precisions)
    assert precisions[1] > 20  # chance is the share of test photos that show it, about 17 %
    assert float(rows[-1][0].split()[8].rstrip(";")) <= 1e-6
