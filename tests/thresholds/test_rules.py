"""Thresholds: what they decide, and their file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tailorset.thresholds.fitting import Affine, make_thresholds
from tailorset.thresholds.rules import LabelRule, Thresholds, abstain_band, one_threshold

RULES = Thresholds({"cup": LabelRule(2.0, 0.5, 0.4, 0.3, 0.7), "key": LabelRule(1.0, -1.0, 0.2, 0.2, 0.7)})


def test_decisions_by_hand() -> None:
    decisions = RULES.apply(torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    cup, key = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(1.0))
    assert decisions.probabilities[0].tolist() == pytest.approx([cup, key])
    assert decisions.present.tolist() == [[True, True], [False, True]]
    assert decisions.abstained.tolist() == [[True, True], [False, False]]
    assert decisions.columns([1]).present.tolist() == [[True], [True]]


def test_the_one_threshold_rule_takes_scores_as_they_are() -> None:
    scores = torch.tensor([[0.49, 0.5, 0.9]])
    decisions = one_threshold(["a", "b", "c"]).apply(scores)
    torch.testing.assert_close(decisions.probabilities, scores.double())
    assert decisions.present.tolist() == [[False, True, True]]
    assert not decisions.abstained.any()


def test_the_band_holds_the_decisions_that_are_wrong_too_often() -> None:
    for threshold in (0.1, 0.35, 0.5, 0.9):
        low, high = abstain_band(threshold, 0.3)
        for probability in torch.linspace(0.005, 0.995, 100).tolist():
            risk = 1 - probability if probability >= threshold else probability
            assert (low < probability < high) == (risk > 0.3)


@pytest.mark.parametrize(("share", "word"), [(0.1, "open"), (0.75, "present")])
def test_a_label_that_all_photos_score_alike_is_open_where_it_would_be_wrong_too_often(share: float, word: str) -> None:
    """A sure classifier's scores at the limit are equal: their probability is the threshold."""
    calibration = Affine(torch.tensor([1.0]).double(), torch.tensor([share]).double().logit())
    fitted = make_thresholds(("cup",), calibration, torch.zeros(9, 1).double(), None, 0.3)
    assert fitted.apply(torch.full((5, 1), 0.5)).words == [[word]] * 5


def test_more_risk_leaves_fewer_questions_open() -> None:
    scores = torch.rand(500, 1, generator=torch.Generator().manual_seed(0))
    left_open = []
    for max_risk in (0.05, 0.2, 0.35, 0.5):
        rule = LabelRule(3.0, 0.2, 0.35, *abstain_band(0.35, max_risk))
        left_open.append(int(Thresholds({"cup": rule}).apply(scores).abstained.sum()))
    assert left_open == sorted(left_open, reverse=True)
    assert left_open[0] > left_open[-1]


def test_the_file_gives_back_the_same_rules_and_the_same_bytes(tmp_path: Path) -> None:
    RULES.save(tmp_path / "a.json")
    loaded = Thresholds.load(tmp_path / "a.json")
    assert loaded == RULES
    assert loaded.labels == ("cup", "key")
    loaded.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_file_keeps_the_size_of_the_photos_if_it_is_known(tmp_path: Path) -> None:
    RULES.save(tmp_path / "older.json")
    assert "photo_px" not in json.loads((tmp_path / "older.json").read_text())
    replace(RULES, photo_px=256).save(tmp_path / "sized.json")
    assert Thresholds.load(tmp_path / "sized.json").photo_px == 256


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"photo_px": "large"}, "photo_px of thresholds is 'large', not a number of pixels"),
        ({"photo_px": 0}, "photo_px of thresholds is 0, not a number of pixels"),
        ({"version": 2}, "has version 2, not 1"),
        ({"labels": [{"label": "cup", "slope": 1.0}]}, "does not hold thresholds"),
        ({"labels": [{"scale": 1.0}]}, "does not hold thresholds"),
        ({"labels": [{"label": "cup", "scale": "steep"}]}, "'cup': scale is 'steep', not a finite number"),
        ({"labels": [{"label": "cup", "scale": -1.0}]}, "'cup': scale is -1.0"),
        ({"labels": [{"label": "cup", "threshold": 0.6}]}, "abstain_low <= threshold <= abstain_high does not hold"),
    ],
)
def test_a_damaged_file_is_an_error(tmp_path: Path, damage: dict[str, Any], message: str) -> None:
    path = tmp_path / "thresholds.json"
    RULES.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(ValueError, match=message):
        Thresholds.load(path)


def test_no_file_half_a_file_and_other_labels_are_errors(tmp_path: Path) -> None:
    missing = r"none.json is missing: .*`dvc checkout` restores it, `dvc repro fit_thresholds` makes it$"
    with pytest.raises(ValueError, match=missing):
        Thresholds.load(tmp_path / "none.json")
    RULES.save(tmp_path / "half.json")
    (tmp_path / "half.json").write_text((tmp_path / "half.json").read_text()[:60])
    with pytest.raises(ValueError, match="does not hold thresholds"):
        Thresholds.load(tmp_path / "half.json")
    with pytest.raises(ValueError, match="3 scores per image, thresholds for 2"):
        RULES.apply(torch.zeros(1, 3))
