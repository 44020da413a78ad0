"""The plan: work counted from params.yaml, costs of units added up, and a sample measured with tiny models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from tailorset import cli
from tailorset.clip.dense_features import crops
from tailorset.commands.planning.page import measured_notes, notes, over_cap, plan_table
from tailorset.commands.planning.plan import Plan
from tailorset.commands.planning.workload import (
    Cost,
    Drawing,
    expected_drawing,
    expected_replies,
    template_prompts,
    total,
    workload,
)
from tailorset.evaluation.alternative import Alternative
from tailorset.evaluation.bootstrap import Interval
from tailorset.project.params import Params, read_yaml
from tailorset.records import LabelSpace

ROOT = Path(__file__).resolve().parents[2]
UNITS = (
    "start",
    "photo",
    "photo captioned",
    "photo encoded",
    "reply",
    "photo learned",
    "tuning step",
    "sampling step",
    "image read",
    "training image",
    "image scored",
    "image judged",
)
PHOTOS = {"train": 4000, "val": 1000, "test": 2000}


@pytest.fixture(scope="module")
def space() -> LabelSpace:
    return LabelSpace.load(ROOT / "data/labels/toybox.yaml")


SIZES = {  # whatever the preset has
    "prepare_dataset": {"num_train": 4000, "num_val": 1000, "num_test": 2000},
    "tune_unet": {"num_updates": 100, "batch_size": 16, "num_photos": 3000},
    "tune_text_encoder": {"num_updates": 120, "evaluate_every": 40, "held_out_prompts": 42},
    "generate_images": {"images_per_label": 200, "max_images": 1800, "negative_images": 0, "num_inference_steps": 10},
}


@pytest.fixture(scope="module")
def params() -> Params:
    return Params.model_validate(changed())


def changed(params_file: Path = ROOT / "presets/toybox.yaml", **blocks: Any) -> dict[str, Any]:
    """The toybox preset with these sizes, and some blocks' keys replaced."""
    values = read_yaml(params_file)
    for name, sizes in SIZES.items():
        values[name] |= sizes
    for name, block in blocks.items():
        values[name] = values[name] | block if isinstance(block, dict) else block
    return values


def plan_of(values: dict[str, Any], space: LabelSpace, **costs: Cost) -> Plan:
    units = dict.fromkeys(UNITS, Cost()) | {name.replace("_", " "): cost for name, cost in costs.items()}
    stages = [
        "prepare_dataset",
        "write_prompts",
        "tune_unet",
        "tune_text_encoder",
        "generate_images",
        "train_classifier",
        "score_baselines",
        "evaluate",
    ]
    return Plan(values, space, PHOTOS, stages, units, accepted_replies=0.5, pass_rate=0.4)


def test_replies_are_asked_for_again_until_one_is_accepted_or_the_rounds_are_over() -> None:
    assert expected_replies(1.0, 4) == 1
    assert expected_replies(0.0, 4) == 4
    assert expected_replies(0.5, 3) == 1.75


def test_drawing_ends_with_the_quota_or_with_the_budget(params: Params, space: LabelSpace) -> None:
    prompts = template_prompts(params, space)
    hopeless = expected_drawing(params, space, prompts, 0.0)
    assert hopeless == Drawing(params.generate_images.max_images, 0, len(space.unseen))
    easy = expected_drawing(params, space, prompts, 0.9)
    assert easy.short == 0
    assert easy.drawn < params.generate_images.max_images
    assert easy.kept == pytest.approx(0.9 * easy.drawn, rel=0.05)


def work_of(space: LabelSpace, **blocks: Any) -> dict[tuple[str, str], float]:
    """(stage, unit) -> amount of a changed toybox preset, of whose 1,000 images 500 are kept."""
    params = Params.model_validate(changed(**blocks))
    return {(stage, unit): count for stage, unit, count in workload(params, space, PHOTOS, 1.5, Drawing(1000, 500, 0))}


def test_work_is_what_the_settings_say(params: Params, space: LabelSpace) -> None:
    work = work_of(space)
    assert work["prepare_dataset", "photo"] == 7000
    assert work["write_prompts", "reply"] == 1.5 * len(space.pairs()) * 10
    assert work["tune_unet", "photo encoded"] == work["tune_unet", "image read"] == 3000
    assert work["tune_unet", "photo learned"] == 1600
    assert work["tune_unet", "sampling step"] == 2 * 21 * 10  # the sheet before and after
    assert work["tune_text_encoder", "tuning step"] == 120 * 32 * (5 + 2)
    assert work["tune_text_encoder", "sampling step"] == (4 + 2) * 4 * 42 * 10  # four looks, before, after
    assert work["generate_images", "sampling step"] == 10_000
    assert work["train_classifier", "training image"] == pytest.approx(4 * 0.9 * (4000 + 2 * 500))
    assert work["fit_thresholds", "image read"] == (1000 + 400) + (1000 + 4000)  # scores, then features
    assert work["evaluate", "image read"] == 3000


def test_negative_images_are_drawn_once_and_all_of_them_are_trained_on(space: LabelSpace) -> None:
    work = work_of(space, generate_images={"negative_images": 300})
    assert work["generate_images", "sampling step"] == (1000 + 300) * 10
    assert work["train_classifier", "training image"] == pytest.approx(4 * (0.9 * 4000 + 2 * (0.9 * 500 + 300)))
    plan = plan_of(changed(generate_images={"negative_images": 300}), space, sampling_step=Cost(1))
    assert plan.saved_by({"generate_images.negative_images": 0}) == 300 * 10
    told = "In addition 300 images of seen labels are drawn as negatives."
    assert told in list(notes(plan))
    assert told[:11] not in "".join(notes(plan_of(changed(), space)))


def test_a_saved_classifier_takes_five_passes_where_it_looks_at_crops(space: LabelSpace) -> None:
    assert 1 + len(crops(torch.zeros(1, 3, 8, 8))) == 5
    described = 1000 + 4000
    work = work_of(space, train_classifier={"crop_weight": 0.25})
    assert work["fit_thresholds", "image scored"] == 5 * (1000 + 400) + described
    assert work["evaluate", "image scored"] == 5 * (1000 + 2000)
    without = work_of(space, train_classifier={"crop_weight": 0})
    assert without["fit_thresholds", "image scored"] == 1000 + 400 + described
    assert without["evaluate", "image scored"] == 1000 + 2000
    assert work["score_baselines", "image scored"] == (1 + 5) * 2000  # the whole, then patches and crops
    of_val = "train_classifier", "image scored"
    assert without[of_val] == (4 + 2) * 1000
    assert work[of_val] == (4 + 2 + 5) * 1000  # training looks at no crops: what it saved is measured in the end


def test_thresholds_look_at_what_calibrates_the_labels(space: LabelSpace) -> None:
    whole = {"train_classifier": {"crop_weight": 0}}
    work = work_of(space, fit_thresholds={"source": "synthetic"}, **whole)
    assert work["fit_thresholds", "image scored"] == (1000 + 400 + 50) + (1000 + 4000)
    labels = tuple(label.model_copy(update={"seen": False}) for label in space.labels)
    unseen = LabelSpace(name="unseen only", labels=labels)
    work = work_of(unseen, fit_thresholds={"source": "synthetic"}, **whole)
    assert work["fit_thresholds", "image scored"] == (1000 + 50) + 1000


def test_lent_photos_are_captioned_and_encoded_once_each(space: LabelSpace) -> None:
    work = work_of(space, tune_unet={"num_updates": 0})
    assert not [unit for _, unit in work if unit in ("photo captioned", "photo encoded")]
    clip = {"model": "local-dir:models/foundation/toybox/backbone"}
    blocks = {
        "write_prompts": {"captions": {"num_photos": 700, "captioner": {"name": "scenes", "clip": clip}}},
        "generate_images": {"from_photos": {"strength": 0.75, "num_photos": 5000}},
    }
    work = work_of(space, prepare_dataset={"lend_photos": "train"}, **blocks)
    assert work["write_prompts", "photo captioned"] == 700
    assert work["generate_images", "photo encoded"] == 4000  # all photos of train
    work = work_of(space, prepare_dataset={"lend_photos": "a/folder"}, **blocks)
    assert work["generate_images", "photo encoded"] == 5000  # at most


def test_images_that_start_from_photos_take_the_last_steps_only(space: LabelSpace) -> None:
    work = work_of(space, generate_images={"from_photos": {"strength": 0.75}})
    assert work["generate_images", "sampling step"] == 1000 * 7  # of 10, rounded as the sampler does
    assert work["tune_text_encoder", "sampling step"] == (4 + 2) * 4 * 42 * 10  # tuning draws from noise
    costs = {"sampling_step": Cost(0.01), "photo_encoded": Cost(0.1), "photo_captioned": Cost(1)}
    plan = plan_of(changed(generate_images={"from_photos": {"strength": 0.75, "num_photos": 30}}), space, **costs)
    assert plan.stage("generate_images").seconds == pytest.approx(plan.drawing.drawn * 7 * 0.01 + 3)
    assert plan.stage("write_prompts").seconds == 0


def test_steps_that_would_copy_the_photo_are_not_named_as_cheaper(space: LabelSpace) -> None:
    drawing = {"from_photos": {"strength": 0.1}}  # one step of 10, none of 5
    plan = plan_of(changed(generate_images=drawing), space, sampling_step=Cost(0.01))
    assert "generate_images.num_inference_steps" not in [key for key, *_ in plan.cheaper()]


def test_what_is_switched_off_is_no_work(space: LabelSpace) -> None:
    values = changed(
        tune_unet={"num_updates": 0}, tune_text_encoder={"num_updates": 0}, train_classifier={"train_on": ["synthetic"]}
    )
    work = workload(Params.model_validate(values), space, PHOTOS, 1.0, Drawing(1000, 500, 0))
    assert not {"tuning step", "photo learned"} & {unit for _, unit, _ in work}
    assert not {"tune_unet", "tune_text_encoder"} & {stage for stage, _, _ in work}
    images = next(count for stage, unit, count in work if (stage, unit) == ("train_classifier", "training image"))
    assert images == pytest.approx(4 * 0.9 * 2 * 500)


def test_costs_add_up_over_units_and_stages(space: LabelSpace) -> None:
    plan = plan_of(changed(), space, start=Cost(2), photo=Cost(0.01, 0, 100), training_image=Cost(0.1, 1e9))
    assert plan.stage("prepare_dataset") == pytest.approx(Cost(70, 0, 700_000))
    assert plan.starts.seconds == 2 * len(plan.stages)
    assert plan.run == pytest.approx(total([plan.starts, *map(plan.stage, plan.stages)]))
    assert plan.run.flops == pytest.approx(1e9 * plan.stage("train_classifier").seconds / 0.1)


def test_cheaper_settings_are_named_with_what_they_save(space: LabelSpace) -> None:
    plan = plan_of(changed(), space, sampling_step=Cost(0.01), training_image=Cost(0.1))
    found = {key: (before, after, saved) for key, before, after, saved in plan.cheaper()}
    assert found["train_classifier.num_epochs"][:2] == (4, 2)
    assert found["train_classifier.num_epochs"][2] == pytest.approx(0.5 * plan.stage("train_classifier").seconds)
    assert found["generate_images.num_inference_steps"][2] == pytest.approx(
        (plan.drawing.drawn + 24 * 42 + 2 * 21) * 5 * 0.01  # held-out images of tuning too, and the UNet's sheet
    )
    assert "tune_text_encoder.backprop_steps" not in found  # is 1
    savings = [saved for *_, saved in plan.cheaper()]
    assert savings == sorted(savings, reverse=True)


def test_leaving_out_crops_is_cheaper(space: LabelSpace) -> None:
    with_crops = changed(train_classifier={"crop_weight": 0.25})
    plan = plan_of(with_crops, space, image_scored=Cost(0.01))
    found = {key: (before, after, saved) for key, before, after, saved in plan.cheaper()}
    assert found["train_classifier.crop_weight"] == (0.25, 0, pytest.approx((4 * 3000 + 5 * 1000) * 0.01))
    assert any("train_classifier.crop_weight 0.25 -> 0" in note for note in notes(plan))
    without = plan_of(changed(), space, image_scored=Cost(0.01))
    assert "train_classifier.crop_weight" not in [key for key, *_ in without.cheaper()]


def test_what_is_cheaper_is_not_said_to_be_as_good(space: LabelSpace) -> None:
    *_, last = notes(plan_of(changed(), space, training_image=Cost(0.1)))
    assert "mAP is not estimated" in last
    assert not any("mAP" in note for note in notes(plan_of(changed(), space)))  # nothing is cheaper


def alternative(name: str, gain: float, **changes: Any) -> Alternative:
    """A run that is measured to be better by `gain`, give or take 0.01."""
    interval = Interval(gain, gain - 0.01, gain + 0.01)
    keys = {key.replace("__", "."): str(value) for key, value in changes.items()}
    return Alternative(name, keys, dict.fromkeys(("ZSL mAP", "GZSL mAP"), interval))


def test_the_cheapest_measured_run_that_is_not_worse_is_named(space: LabelSpace) -> None:
    plan = plan_of(changed(), space, training_image=Cost(1))
    half = plan.stage("train_classifier").seconds / 2
    runs = [
        alternative("one epoch", -0.05, train_classifier__num_epochs=1, train_classifier__warmup_epochs=0),
        alternative("three epochs", 0.001, train_classifier__num_epochs=3),
        alternative("two epochs", -0.005, train_classifier__num_epochs=2),
        alternative("eight epochs", 0.05, train_classifier__num_epochs=8),
        alternative("other rate", 0.0, train_classifier__learning_rate=0.1),
    ]
    best, run, *rest = measured_notes(plan, runs, 2.5)
    hours = f"{half / 3600:.1f} h or {half / 3600 * 2.5:,.2f}"
    assert best == f"Measured: train_classifier.num_epochs 2 is cheaper by {hours} and not measurably worse."
    assert "Run two epochs minus" in run
    assert "ZSL mAP -0.5 [-1.5, +0.5]" in run
    assert rest[0] == "1 cheaper measured run had a lower mAP."
    assert rest[1].startswith("1 measured run not considered")


def test_a_setting_that_needs_another_measurement_has_no_price(space: LabelSpace) -> None:
    plan = plan_of(changed(), space, training_image=Cost(1))
    assert plan.saved_by({"train_classifier.num_epochs": 2}) == plan.stage("train_classifier").seconds / 2
    assert plan.saved_by({"generate_images.batch_size": 2}) is None
    assert plan.saved_by({"train_classifier.num_epochs": -1}) is None
    plan.unit_costs.pop("tuning step")
    assert plan.saved_by({"tune_text_encoder.num_updates": 60}) is None
    assert list(measured_notes(plan, [])) == []


def test_a_run_above_the_cap_is_told_by_how_much(space: LabelSpace) -> None:
    costs = {"training_image": Cost(1)}
    assert over_cap(plan_of(changed(), space, **costs)) == ""
    assert over_cap(plan_of(changed(max_hours=100), space, **costs)) == ""
    assert "more than max_hours 0.5" in over_cap(plan_of(changed(max_hours=0.5), space, **costs))
    assert any("max_hours 0.5" in note for note in notes(plan_of(changed(max_hours=0.5), space, **costs)))


def test_processes_share_the_stages_that_say_so(space: LabelSpace) -> None:
    costs = {"photo": Cost(1), "training_image": Cost(1), "sampling_step": Cost(1)}
    alone, four = (plan_of(changed(num_processes=number), space, **costs) for number in (1, 4))
    for name in ("tune_text_encoder", "generate_images", "train_classifier"):
        assert four.stage(name).seconds == pytest.approx(alone.stage(name).seconds / 4)
    assert four.stage("prepare_dataset") == alone.stage("prepare_dataset")
    assert any("divided by num_processes 4" in note for note in notes(four))
    assert not any("num_processes" in note for note in notes(alone))


def test_prices_follow_from_hours(space: LabelSpace) -> None:
    plan = plan_of(changed(), space, photo=Cost(3600 / 7000), sampling_step=Cost(0.01))
    columns = {column.header: list(column.cells) for column in plan_table(plan, {}, 2.5).columns}
    assert columns["price"][columns["stage"].index("prepare_dataset")] == "2.50"  # 7,000 photos in an hour
    assert columns["price"][-1] == f"{2.5 * plan.run.seconds / 3600:.2f}"
    of_an_image = plan.stage("generate_images").seconds / 3600 * 2.5 / plan.drawing.kept
    assert any(f"{of_an_image:.5f} to draw it" in note for note in notes(plan, 2.5))
    assert "price" not in [column.header for column in plan_table(plan, {}).columns]
    assert not any("Price" in note for note in notes(plan))


def test_the_last_run_stands_beside_the_estimate(space: LabelSpace) -> None:
    plan = plan_of(changed(), space, photo=Cost(0.01))
    columns = {column.header: list(column.cells) for column in plan_table(plan, {"prepare_dataset": 66}).columns}
    assert columns["time"][0] == "1.2 min"
    assert columns["last run"][0] == "1.1 min"
    assert columns["last run"][1] == "-"
    all_known = plan_table(plan, dict.fromkeys(plan.stages, 60.0) | {"add_label": 3600.0})
    assert {column.header: list(column.cells) for column in all_known.columns}["last run"][-1] == "8.0 min + starts"


def test_plan_measures_tiny_models_and_leaves_nothing_behind(
    project: Path,
    tiny_clip_folder: Path,
    tiny_judge_folder: Path,
    tiny_diffusion_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    values = changed(
        project / "params.yaml",
        clip={
            "discriminator": {"model": f"local-dir:{tiny_clip_folder}"},
            "judge": {"model": f"local-dir:{tiny_judge_folder}"},
        },
        generator={"model": str(tiny_diffusion_folder), "image_px": 16},
        write_prompts={"llm": {"name": "template"}},
    )
    values["train_classifier"] |= {"backbone": {"model": f"local-dir:{tiny_judge_folder}"}, "num_context_tokens": 1}
    values["generate_images"] |= {"batch_size": 4}
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    before = {path for path in project.rglob("*") if ".work" not in path.parts}
    answer = CliRunner().invoke(cli.app, ["plan"])
    assert answer.exit_code == 0, answer.output
    for stage in ("prepare_dataset", "generate_images", "train_classifier", "register_model"):
        assert stage in answer.output
    assert "7,000 photos" in answer.output
    assert {path for path in project.rglob("*") if ".work" not in path.parts} == before

    values["prepare_dataset"] |= {"lend_photos": "train"}
    values["generate_images"] |= {"from_photos": {"strength": 0.5, "num_photos": 500}}
    clip = {"model": f"local-dir:{tiny_clip_folder}"}
    values["write_prompts"] |= {"captions": {"num_photos": 300, "captioner": {"name": "scenes", "clip": clip}}}
    (project / "params.yaml").write_text(yaml.safe_dump(values | {"max_hours": 0.0001}))
    answer = CliRunner().invoke(cli.app, ["plan"])
    assert answer.exit_code == 1
    assert "more than max_hours 0.0001" in answer.output
    assert "300 photos captioned" in answer.output
    assert "500 photos encoded" in answer.output


def test_a_stage_that_runs_longer_than_the_cap_stops() -> None:
    code = "import time; from tailorset.project.limits import time_limit\nwith time_limit('x', 1e-4): time.sleep(60)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert answer.returncode == 1
    assert "x has run for max_hours" in answer.stderr
