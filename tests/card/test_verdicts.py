"""The verdict follows the interval; what was not measured is said to be so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from tailorset.card.verdicts import WEIGHTS, file_digests, ladder_gains, ladder_result, precisions, verdict
from tailorset.evaluation.bootstrap import Interval

HEADER = "label,difference,low,high\n"


@pytest.mark.parametrize(
    ("low", "high", "min_gain", "answer"),
    [
        (0.01, 0.05, 0.0, "yes"),
        (0.01, 0.05, 0.02, "undecided"),
        (-0.01, 0.05, 0.0, "undecided"),
        (-0.05, -0.01, 0.0, "no"),
        (0.001, 0.005, 0.01, "no"),
        (0.0, 0.0, 0.0, "no"),
    ],
)
def test_the_interval_decides(low: float, high: float, min_gain: float, answer: str) -> None:
    gain = Interval((low + high) / 2, low, high)
    assert verdict(gain, min_gain).answer == answer
    assert verdict(gain, min_gain).gain == gain


def test_without_a_ladder_nothing_is_measured(tmp_path: Path) -> None:
    assert ladder_gains(tmp_path / "per_label.csv") == {}
    assert ladder_result(tmp_path, {"prepare_dataset.name": "toybox"}) == ({}, "has not run yet: make ladder")
    assert verdict(None, 0.0).answer == "not measured"


def test_the_ladders_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "per_label.csv"
    path.write_text(HEADER + "key,0.02,0.01,0.03\ncup,0.1,0.0,0.2\n")
    assert ladder_gains(path) == {"key": Interval(0.02, 0.01, 0.03), "cup": Interval(0.1, 0.0, 0.2)}


def test_the_ladder_is_not_recommended_to_labels_that_it_cannot_measure(tmp_path: Path) -> None:
    gains, words = ladder_result(tmp_path, {"prepare_dataset.name": "folder"})
    assert not gains
    assert words.startswith("is for the embedded toybox only.")
    assert "dvc exp run -S 'train_classifier.train_on=[real]'" in words
    assert "make ladder" not in words


MEASURED = {
    "prepare_dataset.name": "toybox",
    "train_classifier.fusion": True,
    "prepare_dataset.num_train": 2000,
    "filter_images.threshold": 0.5,
}


@pytest.mark.parametrize(
    ("changed", "other"),
    [
        ({"prepare_dataset.num_train": 4000}, None),  # the ladder's own base is smaller
        ({"data_card.num_shown": 3}, None),  # decides nothing
        ({"train_classifier.fusion": False}, "train_classifier.fusion"),
        ({"filter_images.k": 7, "filter_images.threshold": 0.7}, "filter_images.k, filter_images.threshold"),
    ],
)
def test_a_run_with_other_settings_than_the_ladders_gets_no_verdict(
    tmp_path: Path, changed: dict[str, Any], other: str | None
) -> None:
    (tmp_path / "per_label.csv").write_text(HEADER + "key,0.02,0.01,0.03\n")
    content = {"base": {"prepare_dataset.num_train": 2000}, "settings": MEASURED}
    (tmp_path / "settings.json").write_text(json.dumps(content))
    gains, words = ladder_result(tmp_path, MEASURED | changed)
    if other:
        assert (gains, words) == ({}, f"ran with other values of {other}: make ladder")
    else:
        assert gains == {"key": Interval(0.02, 0.01, 0.03)}
        assert words == "ran with prepare_dataset.num_train 2000"
        (tmp_path / "settings.json").write_text(json.dumps(content | {"seeds": 1}))
        assert "one seed, so the intervals leave out" in ladder_result(tmp_path, MEASURED | changed)[1]


def test_other_weights_or_labels_than_the_ladders_get_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = Path("labels.yaml")
    labels.write_text("name: toys")
    WEIGHTS.mkdir(parents=True)
    (WEIGHTS / "model.safetensors").write_text("1")
    Path("per_label.csv").write_text(HEADER + "key,0.02,0.01,0.03\n")
    content = {"base": {}, "settings": MEASURED, "files": file_digests(labels)}
    Path("settings.json").write_text(json.dumps(content))
    assert ladder_result(Path(), MEASURED)[0]
    (WEIGHTS / "model.safetensors").write_text("2")
    assert ladder_result(Path(), MEASURED) == ({}, f"ran with other values of {WEIGHTS}: make ladder")
    labels.unlink()
    assert "labels.yaml, models/foundation/toybox" in ladder_result(Path(), MEASURED)[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,low\nkey,1\n", r"no column \['difference', 'high'\].*make ladder"),
        (HEADER + "key,0.5,0.6,0.7\n", r"\['key'\].*low <= difference <= high"),
        (HEADER + "key,,0.6,0.7\n", r"\['key'\].*finite"),
        (HEADER + "key,1,1,inf\n", r"\['key'\].*finite"),
        (HEADER + "key,1,1,1\nkey,2,2,2\n", r"\['key'\].*each label once"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "per_label.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        ladder_gains(path)


def test_precision_is_scikit_learns_and_the_gain_is_paired() -> None:
    rng = np.random.default_rng(0)
    targets = torch.from_numpy(rng.integers(0, 2, (300, 3)))
    targets[:, 1] = 0  # never shown
    targets[:, 2] = 0
    targets[5, 2] = 1  # shown once: many resamples hold no positive
    clip = torch.from_numpy(rng.normal(size=(300, 3)))
    ours = clip + targets
    often, never, once = precisions(ours, clip, targets, num_resamples=200, seed=0)
    assert often.ours == pytest.approx(average_precision_score(targets[:, 0], ours[:, 0]))
    assert often.clip == pytest.approx(average_precision_score(targets[:, 0], clip[:, 0]))
    assert often.gain is not None
    assert often.gain.value == pytest.approx(often.ours - often.clip)
    assert 0 < often.gain.low < often.gain.value < often.gain.high
    assert (never.ours, never.clip, never.gain) == (None, None, None)
    assert once.ours is not None
    assert once.gain is None
    same = precisions(clip, clip, targets, num_resamples=50, seed=0)[0].gain
    assert same == Interval(0, 0, 0)


def test_a_gain_is_found_whatever_its_label_is_called(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("label,difference,low,high\nnan,0.1,0.0,0.2\n007,0.2,0.1,0.3\n")
    assert ladder_gains(path) == {"nan": Interval(0.1, 0.0, 0.2), "007": Interval(0.2, 0.1, 0.3)}
