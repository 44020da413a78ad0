"""The gate: versions that pass, and its objections to the rest."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from tailorset.evaluation.metrics import average_precisions, zero_shot_metrics
from tailorset.evaluation.results import MAPS
from tailorset.records import Label, LabelSpace
from tailorset.registry.gate import compare
from tailorset.registry.grown import Measured, measure_grown
from tailorset.registry.measurement import Measurement, measure, photos_hash, with_val
from tailorset.storage.annotated import Annotated
from tests.registered import MEASUREMENT


def with_maps(zsl: float, gzsl: float) -> Measurement:
    """As good on val; on test worse than any other."""
    return replace(MEASUREMENT, val_maps={"zsl/map": zsl, "gzsl/map": gzsl}, maps={"zsl/map": 0.1, "gzsl/map": 0.1})


@pytest.mark.parametrize(("zsl", "gzsl"), [(0.51, 0.61), (0.505, 0.605), (0.9, 0.61)])
def test_as_good_up_to_the_margin_passes(zsl: float, gzsl: float) -> None:
    comparison = compare(with_maps(zsl, gzsl), MEASUREMENT, margin=0.5)
    assert comparison.objections == ()
    assert [change.name for change in comparison.changes] == ["ZSL mAP", "GZSL mAP"]
    assert comparison.changes[0].points == pytest.approx(100 * (zsl - 0.51))
    assert [change.points for change in comparison.reported] == pytest.approx([-40, -50])  # and not judged


def annotated(rows: pd.DataFrame, targets: torch.Tensor) -> Annotated:
    return Annotated(rows, targets, Path("data/real"), "real")


def test_either_map_below_the_margin_is_refused_with_both_figures() -> None:
    for worse, name in ((with_maps(0.504, 0.9), "ZSL mAP is 50.40"), (with_maps(0.9, 0.604), "GZSL mAP is 60.40")):
        (objection,) = compare(worse, MEASUREMENT, margin=0.5).objections
        assert objection.startswith(name)
        assert "a loss of more than 0.5 points" in objection
        assert compare(worse, MEASUREMENT, margin=0.7).objections == ()
    assert len(compare(with_maps(0.1, 0.1), MEASUREMENT, margin=0.5).objections) == 2


def test_labels_that_lost_are_listed_the_worst_first_and_refuse_nothing() -> None:
    lost = replace(MEASUREMENT, average_precision={"tea cup": 0.48, "ball": 0.2})
    comparison = compare(lost, MEASUREMENT, margin=0.5)
    assert [(change.name, round(change.points)) for change in comparison.regressions] == [
        ("ball", -50),
        ("tea cup", -2),
    ]
    assert comparison.objections == ()
    unknown = replace(MEASUREMENT, average_precision={"tea cup": None, "ball": 0.6})
    assert [change.name for change in compare(unknown, MEASUREMENT, margin=0.5).regressions] == ["ball"]


def test_the_first_champion_has_to_beat_raw_clip_on_both() -> None:
    assert compare(MEASUREMENT, None, margin=0.5).objections == ()
    (objection,) = compare(with_maps(0.31, 0.6), None, margin=0.5).objections
    assert objection == "ZSL mAP is 31.00 instead of 31.00, which is not above raw CLIP"
    (objection,) = compare(replace(MEASUREMENT, val_clip_maps={}), None, margin=0.5).objections
    assert "raw CLIP was not measured on val" in objection


def test_other_photos_labels_or_nothing_measured_are_refused_with_the_remedy() -> None:
    for champion, words in (
        (replace(MEASUREMENT, val_set="b" * 64), "other val photos (bbbbbbbb) than the challenger (cccccccc)"),
        (replace(MEASUREMENT, val_set="", val_maps={}), "the champion was not measured on val"),
    ):
        (objection,) = compare(MEASUREMENT, champion, 0.5).objections
        assert words in objection
        assert "`tailorset promote --measure`" in objection
    (objection,) = compare(MEASUREMENT, replace(MEASUREMENT, unseen=["ball"]), 0.5).objections
    assert "['ball', 'tea cup'] are unseen for only one of challenger and champion" in objection
    other_test = compare(MEASUREMENT, replace(MEASUREMENT, test_set="b" * 64), 0.5)
    assert (other_test.objections, other_test.reported, other_test.regressions) == ((), (), ())
    (objection,) = compare(MEASUREMENT, replace(MEASUREMENT, average_precision={"ball": 0.5}), 0.5).objections
    assert "only one of challenger and champion has ['tea cup']" in objection
    (objection,) = compare(replace(MEASUREMENT, val_maps={}, val_clip_maps={}), MEASUREMENT, 0.5).objections
    assert "no val photo is annotated for unseen labels" in objection


def grown(added: dict[str, list[float | None]]) -> Measurement:
    """Measurement of a version of MEASUREMENT to which labels were added."""
    precision = MEASUREMENT.average_precision | dict.fromkeys(added, 0.1)
    whole = replace(MEASUREMENT, val_maps={"zsl/map": 0.2, "gzsl/map": 0.2}, average_precision=precision)
    return replace(whole, val_set="d" * 64, added=added, before=MEASUREMENT)


def test_an_added_label_is_compared_with_raw_clip_and_the_rest_with_the_champion() -> None:
    found = compare(grown({"drum": [0.6, 0.4], "lamp": [None, None]}), MEASUREMENT, margin=0.5)
    assert found.objections == ()
    assert [change.points for change in found.changes] == [0, 0]  # not those of all labels, which are lower
    assert found.notes == (
        "added drum: average precision on val is 60.0, raw CLIP's 40.0",
        "added lamp: no val photo shows it, so nothing was measured",
    )
    (objection,) = compare(grown({"drum": [0.3, 0.4]}), MEASUREMENT, margin=0.5).objections
    assert objection == "drum's average precision on val is 30.00 instead of 40.00, raw CLIP's"
    assert compare(grown({"drum": [0.398, 0.4]}), MEASUREMENT, margin=0.5).objections == ()
    (objection,) = compare(grown({"drum": [0.6, 0.4]}), with_maps(0.6, 0.7), margin=0.5).objections[:1]
    assert "a loss of more than 0.5 points" in objection
    (objection,) = compare(MEASUREMENT, grown({"drum": [0.6, 0.4]}), margin=0.5).objections
    assert "only one of challenger and champion has ['drum']" in objection
    assert "put it into the label file and `make run`" in objection


def test_a_measurement_with_added_labels_is_read_as_it_was_saved(tmp_path: Path) -> None:
    for measured in (MEASUREMENT, grown({"drum": [0.6, None]})):
        measured.save(tmp_path / "measured.json")
        assert Measurement.load(tmp_path / "measured.json") == measured
    MEASUREMENT.save(tmp_path / "measured.json")
    assert "added" not in (tmp_path / "measured.json").read_text()


@pytest.mark.parametrize("value", [None, float("nan"), "no number"])
def test_a_measurement_without_a_number_is_refused_and_not_taken_for_as_good(value: object, tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    path.write_text(json.dumps(asdict(MEASUREMENT) | {"val_maps": {"zsl/map": value, "gzsl/map": 0.1}}))
    with pytest.raises(ValueError, match=r"(?s)measured.json does not hold a measurement .*val_maps.zsl/map"):
        Measurement.load(path)


def test_the_part_without_added_labels_is_measured_as_if_there_were_none() -> None:
    torch.manual_seed(0)
    labels = [{"name": name, "seen": name == "hat"} for name in ("cup", "hat")]
    before = LabelSpace.model_validate({"name": "two", "labels": labels})
    space = before.grown([Label(name="drum", seen=False)])
    rows, targets = pd.DataFrame({"sha256": list("abcdef")}), torch.randint(0, 2, (6, 3))
    ours, clip = torch.rand(6, 3), torch.randn(6, 3)
    parts = Measured(annotated(rows, targets), ours, clip)
    found = measure_grown(parts, parts, space, before)
    alone = measure(ours[:, :2], clip[:, :2], annotated(rows, targets[:, :2]), before)
    assert found.before is not None
    assert (found.before.maps, found.before.test_set) == (alone.maps, alone.test_set)
    assert found.before.val_maps == alone.maps
    assert found.before.val_set == photos_hash(annotated(rows, targets[:, :2]), before.names)
    both = torch.stack([ours[:, 2], clip[:, 2]], 1)
    assert found.added["drum"] == average_precisions(both, targets[:, [2, 2]]).tolist()
    assert found.labels_before == {"cup", "hat"}


def test_a_test_set_is_its_photos_labels_and_annotations() -> None:
    rows, targets = pd.DataFrame({"sha256": ["a", "b", "c"]}), torch.tensor([[1, 0], [0, -1], [1, 1]])
    same = photos_hash(annotated(rows, targets), ("cup", "ball"))
    assert photos_hash(annotated(rows[::-1], targets.flip(0)), ("cup", "ball")) == same
    assert photos_hash(annotated(rows, targets.flip(1)), ("ball", "cup")) == same
    changed = targets.clone()
    changed[1, 1] = 0
    others = [
        photos_hash(annotated(rows, changed), ("cup", "ball")),
        photos_hash(annotated(rows, targets), ("cup", "fish")),
        photos_hash(annotated(rows[:2], targets[:2]), ("cup", "ball")),
        photos_hash(annotated(rows.assign(sha256=["a", "b", "d"]), targets), ("cup", "ball")),
    ]
    assert len({same, *others}) == 5


def test_a_measurement_holds_the_figures_of_the_evaluation() -> None:
    torch.manual_seed(0)
    seen = {"cup": False, "key": False, "hat": True, "ball": True}
    labels = [{"name": name, "seen": annotated} for name, annotated in seen.items()]
    space = LabelSpace.model_validate({"name": "four", "labels": labels})
    rows, targets = pd.DataFrame({"sha256": list("abcdef")}), torch.randint(0, 2, (6, 4))
    targets[:, 3] = 0
    ours, clip = torch.rand(6, 4), torch.randn(6, 4)
    found = measure(ours, clip, annotated(rows, targets), space)
    for maps, scores in ((found.maps, ours), (found.clip_maps, clip)):
        evaluated = zero_shot_metrics(scores, targets, space)
        assert maps == pytest.approx({key: evaluated[key] for key in ("zsl/map", "gzsl/map")})
    assert found.average_precision["ball"] is None  # no photo shows one
    assert found.average_precision["key"] is not None
    nothing = measure(ours, clip, annotated(rows, torch.full_like(targets, -1)), space)
    assert nothing.maps == nothing.clip_maps == {}


def test_val_s_figures_are_training_s_where_val_is_annotated_for_unseen_labels() -> None:
    labels = [{"name": "cup", "seen": False}, {"name": "hat", "seen": True}]
    space = LabelSpace.model_validate({"name": "two", "labels": labels})
    rows, targets = pd.DataFrame({"sha256": list("ab")}), torch.tensor([[1, 0], [0, 1]])
    metrics = {f"val/{who}{key}": value for who, value in (("", 0.4), ("raw_clip/", 0.2)) for key in MAPS}
    found = with_val(MEASUREMENT, annotated(rows, targets), space, metrics)
    assert (found.val_maps, found.val_clip_maps) == (dict.fromkeys(MAPS, 0.4), dict.fromkeys(MAPS, 0.2))
    assert found.val_set == photos_hash(annotated(rows, targets), space.names)
    blank = replace(MEASUREMENT, val_set="", val_maps={}, val_clip_maps={})
    assert with_val(blank, annotated(rows, torch.tensor([[-1, 0], [-1, 1]])), space, metrics) == blank
