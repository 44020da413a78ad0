from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tailorset.project.params import flatten, load_params

ROOT = Path(__file__).resolve().parents[2]
Edit = Callable[[dict[str, Any]], Any]


def edited(folder: Path, edit: Edit) -> Path:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    edit(values)
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_params_are_frozen_and_reach_the_plugin() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.filter_images.config.model_dump()["threshold"] == 0.9
    with pytest.raises(ValidationError):
        params.seed = 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p.update(max_hours=1e12), "max_hours.*less than or equal to 8760"),
        (lambda p: p.update(sed=1), r"'sed'.*Did you mean 'seed'.*Choices: .*filter_images"),
        (lambda p: p["generate_images"].update(max_image=1), r"generate_images: .*Did you mean 'max_images'"),
        (lambda p: p["clip"]["judge"].update(modle="x"), r"clip\.judge: .*Did you mean 'model'"),
        (lambda p: p["filter_images"].update(treshold=1), r"filter_images: .*Did you mean 'threshold'"),
        (lambda p: p["write_prompts"]["llm"].update(quantisation="8bit"), r"llm: .*Did you mean 'quantization'"),
        (lambda p: p["write_prompts"]["llm"].update(quantization="3bit"), r"(?s)llm: .*quantization: .*4bit"),
        (lambda p: p["generator"].update(name="stable_difusion"), r"generator: .*Did you mean 'stable_diffusion'"),
        (lambda p: p["prepare_dataset"].update(shardsize=1), r"prepare_dataset: .*Did you mean 'shard_size'"),
        (lambda p: p["train_classifier"]["augment"]["real"].update(flips=1), r"augment\.real\.flips: no such key"),
        (lambda p: p["generator"].pop("name"), r"generator: .*names no variant.*stable_diffusion"),
        (lambda p: p.update(seed=99999999999999999999), r"seed: .*less than 9223372036854775808"),
        (lambda p: p.update(device="tpu"), r"device: .*'auto', 'cpu' or 'cuda'"),
        (lambda p: p.pop("evaluate"), r"(?s)evaluate: Field required.*presets/toybox\.yaml has every block"),
        (lambda p: p["tune_text_encoder"].update(backprop_steps=11), r"choose 1 to num_inference_steps \(5\)"),
        (lambda p: p["tune_text_encoder"].update(stop_after=[3, 11]), r"stop_after is \[3, 11\]: choose"),
        (lambda p: p["evaluate"].update(top_k=[0]), r"evaluate\.top_k\.0: .*greater than or equal to 1, not 0"),
        (lambda p: p["register_model"].update(model_name="a/b"), r"register_model\.model_name: .*, not 'a/b'"),
        (lambda p: p["register_model"].update(model_name="kid's"), r"register_model\.model_name: .*, not \"kid's\""),
        (lambda p: p["clip"].update(prompt_template="a {} {x}"), r"'a \{\} \{x\}' is not a wording for a label"),
        (lambda p: p["train_classifier"].update(learning_rate=float("inf")), r"learning_rate: .*finite"),
        (lambda p: p["clip"].update(prompt_template="a photo"), r"clip\.prompt_template: "),
        (lambda p: p["generate_images"]["allocation"].update(name="ucb"), r"allocation\.name: .*'thompson'"),
        (lambda p: p["generate_images"].update(weakness={"fish": 0}), r"weakness\.fish: .*greater than 0"),
        (lambda p: p["generate_images"].update(max_images=-1), r"generate_images\.max_images: .*greater than 0"),
    ],
)
def test_a_fault_says_where_it_is_and_how_to_mend_it(tmp_path: Path, edit: Edit, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_params(edited(tmp_path, edit))


def test_a_list_whose_items_are_wrong_is_not_called_short(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"evaluate\.top_k\.0: ") as raised:
        load_params(edited(tmp_path, lambda p: p["evaluate"].update(top_k=[0])))
    assert "at least 1 item" not in str(raised.value)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    def two_faults(params: dict[str, Any]) -> None:
        params["device"] = "tpu"
        params["filter_images"]["name"] = "none"

    with pytest.raises(ValueError, match=r"(?s)device: .*filter_images: "):
        load_params(edited(tmp_path, two_faults))


@pytest.mark.parametrize(("text", "message"), [("- 1", "not list"), ("", "not NoneType"), ("a: [", "not valid YAML")])
def test_a_file_that_holds_no_settings_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_params(path)


def test_a_missing_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tailorset use toybox"):
        load_params(tmp_path / "params.yaml")


def test_flat_names_are_those_of_the_command_line() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_a_key_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 1\nclip:\n  judge: a\n  judge: b\nseed: 1\n")
    with pytest.raises(ValueError, match=r"params.yaml has 'judge' twice, in lines 3 and 4: remove one"):
        load_params(path)


def test_outside_of_a_project_nothing_is_proposed_that_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"go to the folder of a tailorset project\.$"):
        load_params("params.yaml")
    Path("presets").mkdir()
    with pytest.raises(ValueError, match="`tailorset use toybox` writes it"):
        load_params("params.yaml")
