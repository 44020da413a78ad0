"""Checks of `tailorset add-label`: each fault ends it with a clear error, before anything that takes long."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from tailorset import cli
from tailorset.commands.adding import NOTES, Addition, checked_space, earlier_folders, folder_name
from tailorset.inference.predictor import model_labels
from tailorset.project.layout import ADDED_DATA, CLASSIFIER, LORA, THRESHOLDS
from tailorset.project.params import load_params
from tailorset.records import LabelSpace
from tests.addition_project import write_addition_project

MODEL = str(CLASSIFIER)


@pytest.fixture(autouse=True)
def _project(project: Path, tiny_clip_folder: Path, tiny_judge_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_addition_project(tiny_clip_folder, tiny_judge_folder)
    monkeypatch.setattr("tailorset.cli.models.subprocess", SimpleNamespace(run=refuse))


def refuse(*arguments: object, **options: object) -> None:
    raise AssertionError("the script was started")


def error(*arguments: str, model: str = MODEL) -> str:
    """The one message with which the command ends."""
    options = ("--model", model) if model else ()
    result = CliRunner().invoke(cli.app, ["add-label", *arguments, *options], terminal_width=200)
    assert result.exit_code == 1, result.output
    assert not isinstance(result.exception, AssertionError)
    return " ".join(result.output.split())


def change_params(block: str, **values: object) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params[block] |= values
    Path("params.yaml").write_text(yaml.safe_dump(params))


def test_a_label_that_the_model_has() -> None:
    assert "models/classifier has the label 'cup' already, learned from generated images" in error("cup")
    message = error("ball")
    assert "has the label 'ball' already, learned from annotated photos" in message
    assert "it has key, cup, fish, tree, ball" in message
    assert "`make run`" in message


def test_a_label_that_is_the_same_by_another_spelling() -> None:
    assert "'cup' of label 'cup' and 'Cup' of label 'Cup' are the same name" in error("Cup")
    message = error("mug", "--alias", "cup")
    assert "'cup' of label 'cup' and 'cup' of label 'mug' are the same name" in message


def test_a_label_named_twice() -> None:
    assert "drum is named more than once: name each label once" in error("drum", "drum")


@pytest.mark.parametrize("name", ["drum/kit", "drum|", "", "drum\n"])
def test_characters_that_no_label_has(name: str) -> None:
    assert "is not a label name: it has" in error(name)


def test_wordings_are_for_a_single_label() -> None:
    assert "--alias and --apart-from are for one label, not 2" in error("drum", "lamp", "--alias", "big drum")
    message = error("drum", "--apart-from", "sofa")
    assert "confusable ['drum', 'sofa']: give two different labels out of key, cup, fish" in message


def test_no_model_yet() -> None:
    shutil.rmtree("models")
    assert "There is no folder models/classifier" in error("drum")
    Path("mlflow.db").unlink()
    message = error("drum", model="")
    assert "There is no model registry" in message
    assert "`make run`" in message


def test_a_model_that_is_not_in_the_registry() -> None:
    message = error("drum", model="")
    assert "models:/tailorset-small@champion is not in the registry" in message
    assert "`tailorset promote` a champion" in message


def test_a_model_of_other_labels() -> None:
    params = Path("params.yaml").read_text().replace("labels/small.yaml", "labels/toybox.yaml")
    Path("params.yaml").write_text(params)
    message = error("drum")
    assert "models/classifier is not of the labels of toybox in params.yaml: it lacks umbrella, clock, boat" in message


def test_a_product_or_file_of_the_model_that_is_missing() -> None:
    THRESHOLDS.unlink()
    assert "models/classifier has no thresholds.json: `make run` makes a version that has" in error("drum")
    shutil.rmtree(LORA)
    message = error("drum")
    assert "models/text_encoder_lora is missing" in message
    assert "`dvc checkout`" in message


def test_a_table_of_an_earlier_version() -> None:
    path = Path("data/filtered/manifest.parquet")
    pd.read_parquet(path).drop(columns=["prompt", "reviewed"]).to_parquet(path)
    assert f"{path} is of an earlier version of tailorset, with no column prompt, reviewed: `make run`" in error("drum")


def test_another_variant_or_settings_that_do_not_fit() -> None:
    change_params("generate_images", max_images=3)
    assert "generate_images.max_images is 3, and label space" in error("drum")
    change_params("train_classifier", num_context_tokens=2)
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["train_classifier"] = {
        "name": "linear_head",
        "backbone": params["train_classifier"]["backbone"],
        "held_out_share": 0.5,
        "synthetic_repeats": 1,
    }
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert "models/classifier is a dual_prompt, and train_classifier.name is linear_head" in error("drum")
    config = CLASSIFIER / "config.json"
    config.write_text(config.read_text().replace('"name": "dual_prompt"', '"name": "linear_head"'))
    message = error("drum")
    assert "a linear_head learns all labels together: put the labels into the label file, and `make run`" in message


def test_what_is_right_starts_the_script() -> None:
    result = CliRunner().invoke(cli.app, ["add-label", "drum", "--alias", "snare drum", "--model", MODEL])
    assert isinstance(result.exception, AssertionError)
    assert "the script was started" in str(result.exception)
    addition = Addition(names=("drum",), model=MODEL, aliases=("snare drum",), apart_from=("cup",))
    space = checked_space(addition, load_params(), CLASSIFIER, *model_labels(CLASSIFIER))
    assert space.names == ("key", "cup", "fish", "tree", "ball", "drum")
    assert space.prompt_names("drum") == ("snare drum",)
    assert ("cup", "drum") not in space.pairs()
    assert ("key", "drum") in space.pairs()


def test_images_of_earlier_additions_are_found_by_their_labels() -> None:
    for name, labels in (("drum", '["drum"]'), ("lamp", '["lamp"]')):
        (ADDED_DATA / name).mkdir(parents=True)
        (ADDED_DATA / name / NOTES).write_text(f'{{"labels": {labels}, "to": "models/classifier"}}')
    base = LabelSpace.load("data/labels/small.yaml")
    with_drum = Addition(names=("drum",), model=MODEL).label_space(base)
    assert earlier_folders(base) == []
    assert earlier_folders(with_drum) == [ADDED_DATA / "drum"]


def test_images_that_show_a_label_which_the_model_lacks_are_not_of_its_additions() -> None:
    base = Addition(names=("drum",), model=MODEL).label_space(LabelSpace.load("data/labels/small.yaml"))
    for name, others in (("drum", ["cup"]), ("drum-of-other", ["boat"])):
        (ADDED_DATA / name).mkdir(parents=True)
        (ADDED_DATA / name / NOTES).write_text(json.dumps({"labels": ["drum"], "next_to": others}))
    assert earlier_folders(base) == [ADDED_DATA / "drum"]


def test_a_label_added_under_two_label_files_has_two_folders() -> None:
    addition, mine, other = (
        Addition(names=("drum",), model=MODEL),
        Path("data/labels/a.yaml"),
        Path("data/labels/b.yaml"),
    )
    assert folder_name(addition, mine) == "drum"
    (ADDED_DATA / "drum").mkdir(parents=True)
    (ADDED_DATA / "drum" / NOTES).write_text(json.dumps({"labels": ["drum"], "label_file": str(mine)}))
    assert folder_name(addition, mine) == "drum"
    assert folder_name(addition, other) == "drum-of-b"
