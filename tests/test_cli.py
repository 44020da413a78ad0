from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tailorset import cli
from tailorset.evaluation.results import columns
from tailorset.project.params import load_params
from tailorset.project.unlogged import keep
from tailorset.storage.files import write_json

ROOT = Path(__file__).resolve().parents[1]
runner = CliRunner()


@pytest.fixture
def presets(project: Path) -> Path:
    shutil.copytree(ROOT / "presets", project / "presets")
    return project / "presets"


def run(*arguments: str) -> tuple[int, str]:
    answer = runner.invoke(cli.app, list(arguments))
    return answer.exit_code, answer.output


def write_results(reports: Path) -> None:
    rows = {"baseline/clip/": 0.25, "baseline/clip_patches/": 0.5, "": 0.75}
    metrics = {prefix + key: value for prefix, value in rows.items() for key in columns({}).values()}
    acceptance = {"before/discriminator": 0.125, "after/discriminator": 0.625, "before/judge": 0.1, "after/judge": 0.2}
    write_json(reports / "metrics.json", metrics | {f"acceptance/{key}": value for key, value in acceptance.items()})


def test_use_takes_over_a_preset(presets: Path) -> None:
    (presets / "other.yaml").write_text("# Another seed.\nbase: toybox\nseed: 1\n")
    assert run("use", "other")[0] == 0
    assert Path("params.yaml").read_text().startswith("# Another seed.\nseed: 1\ndevice: auto  ")
    assert load_params("params.yaml") == load_params(ROOT / "params.yaml").model_copy(update={"seed": 1})
    assert run("use", "toybox")[0] == 0


def test_use_keeps_edited_settings_unless_forced(presets: Path) -> None:
    Path("params.yaml").write_text("seed: 7\n")
    code, output = run("use", "toybox")
    assert code == 1
    assert "--force" in output
    assert Path("params.yaml").read_text() == "seed: 7\n"
    Path("params.yaml").write_bytes("seed: 7  # größer\n".encode("latin-1"))
    assert "was edited" in run("use", "toybox")[1]
    assert run("use", "toybox", "--force")[0] == 0
    assert Path("params.yaml").read_bytes() == (presets / "toybox.yaml").read_bytes()


def test_use_lists_the_choices_for_an_unknown_preset(presets: Path) -> None:
    code, output = run("use", "toybx")
    assert code == 1
    assert "Did you mean 'toybox'?" in output
    (presets / "broken.yaml").write_text("seed: [\n")
    assert "broken.yaml is not valid YAML" in run("use", "broken")[1]
    assert run("use", "toybox")[0] == 0
    assert run("use", "../params")[0] == 1


def test_results_show_every_method_and_where_to_look_next(project: Path) -> None:
    (project / "mlflow.db").unlink()
    write_results(project / "reports")
    write_json(project / "reports/generate_images/metrics.json", {"generate/images": 900, "generate/under_quota": 2})
    code, output = run("results")
    assert code == 0
    for text in ("raw CLIP", "25.0", "CLIP with patches and crops", "50.0", "ours", "75.0", "12.5", "62.5", "20.0"):
        assert text in output
    assert "NOT reached by 2 unseen labels" in output
    assert "900 images" in output
    assert "no models:/tailorset-toybox@challenger; register one: make run" in output  # nothing is trained here
    assert not (project / "mlflow.db").exists()  # asking makes no database
    assert "make ui" in output


def test_results_say_where_training_did_not_help(project: Path) -> None:
    write_results(project / "reports")
    figures = {"zsl/map": 0.518, "gzsl/map": 0.673}
    trained = {
        f"val/{kind}/{key}": value for kind in ("raw_clip", "start", "trained") for key, value in figures.items()
    }
    write_json(project / "reports/train_classifier/metrics.json", {"best_epoch": -1} | trained)
    code, output = run("results")
    words = " ".join(output.split())
    assert code == 0
    assert "Training did not help: no epoch beats raw CLIP on val, so the classifier is raw CLIP itself" in words
    assert "To try:" in words
    write_json(project / "reports/train_classifier/metrics.json", {"best_epoch": 2} | trained)
    assert "did not help" not in run("results")[1]


def test_what_is_not_in_mlflow_ends_the_table_and_is_in_status_and_doctor(project: Path) -> None:
    write_results(project / "reports")
    assert "NOT RECORDED" not in run("results")[1]
    keep(project, "register_model", ["a version of tailorset-toybox"], "ConnectionError: away", settings="")
    line = "NOT RECORDED: MLflow lacks of register_model a version of tailorset-toybox (ConnectionError: away)"
    assert run("results")[1].splitlines()[-1].startswith(line)
    assert f"tracking    {line}" in run("status")[1]
    assert line in run("doctor")[1]


def test_results_without_annotated_photos_say_so(project: Path) -> None:
    write_json(project / "reports/metrics.json", {"evaluate/photos": 10})
    code, output = run("results")
    assert code == 0
    assert "No test photo is annotated" in output
    assert "raw CLIP" not in output
    assert "Tuning the text encoder" not in output  # it was not tuned
    assert "results     none, as no test photo is annotated" in run("status")[1]


def test_results_of_other_labels_are_not_shown(project: Path) -> None:
    write_results(project / "reports")
    labels = Path("data/labels/toybox.yaml")
    evaluated = {
        "params": {"params.yaml": {"label_space": str(labels)}},
        "deps": [{"path": str(labels), "md5": hashlib.md5(labels.read_bytes()).hexdigest()}],
    }
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"evaluate": evaluated}}))
    assert run("results")[0] == 0
    params = Path("params.yaml").read_text()
    Path("params.yaml").write_text(params.replace("data/labels/", "./data/labels/"))
    evaluated["params"]["params.yaml"]["label_space"] = f"./{labels}"
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"evaluate": evaluated}}))
    assert run("results")[0] == 0
    Path("params.yaml").write_text(params.replace("labels/toybox.yaml", "labels/coco.yaml"))
    code, output = run("results")
    assert code == 1
    assert "75.0" not in output
    assert "results of data/labels/toybox.yaml, and params.yaml names data/labels/coco.yaml: make run" in output
    assert "none yet of data/labels/coco.yaml" in run("status")[1]
    Path("params.yaml").write_text(params)
    labels.write_text(labels.read_text() + "\n# edited\n")
    code, output = run("results")
    assert code == 0
    assert "Measured before data/labels/toybox.yaml was edited: make run" in output


def test_results_before_the_first_run_name_the_command(project: Path) -> None:
    code, output = run("results")
    assert code == 1
    assert "make run" in output


def test_status_says_what_is_there_and_what_is_missing(project: Path) -> None:
    folder = project / "models/foundation/toybox/diffusion"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    write_results(project / "reports")
    code, output = run("status")
    assert code == 0, output
    assert "seen" in output
    missing = next(line for line in output.splitlines() if line.startswith("weights"))
    assert "models/foundation/toybox/judge" in missing
    assert "diffusion" not in missing
    assert "ZSL mAP 75.0 %" in output
    assert "no models:/tailorset-toybox@challenger" in output


def test_use_outside_a_project_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run("use", "toybox")
    assert code == 1
    assert "There is no presets/ here" in output


def test_check_finds_faults_of_settings_and_labels_before_a_run(project: Path) -> None:
    shutil.copytree(ROOT / "models" / "foundation" / "toybox", project / "models" / "foundation" / "toybox")
    subprocess.run(["git", "add", "models"], check=True)
    code, output = run("check")
    assert code == 0
    assert output == (
        "ok: toybox, 14 seen and 6 unseen labels; settings, models and photos can be used.\n"
        "generated set: commercial use is allowed\n"
        "classifier: commercial use is allowed\n"
    )
    labels = project / "data/labels/toybox.yaml"
    labels.write_text(labels.read_text().replace("name: ball", "name: ../../x"))
    code, output = run("check")
    assert code == 1
    assert "'../../x' is not a label name" in output
    labels.write_text(labels.read_text().replace("name: ../../x", "name: ball"))
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("weakness: {}", "weakness: {fsh: 2}"))
    code, output = run("check")
    assert code == 1
    assert "Did you mean 'fish'?" in output
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("grouped_softmax ", "grouped_sofmax "))
    code, output = run("check")
    assert code == 1
    assert "Did you mean 'grouped_softmax'?" in output


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p["clip"].update(judge={"model": "local-dir:nowhere"}), "clip.judge: there is no folder nowhere"),
        (lambda p: p["clip"].update(judge={"model": "ViT-B-61"}), "'ViT-B-61' is unknown"),
        (lambda p: p["clip"].update(judge={"model": "ViT-B-16", "pretrained": "nope"}), "pretrained='nope'"),
        (lambda p: p["generator"].update(model="nobody/nothing"), "nobody/nothing, the latest, is not downloaded"),
    ],
)
def test_check_finds_models_that_are_not_there(project: Path, edit: Callable[[Any], None], message: str) -> None:
    (project / "models").mkdir()
    (project / "models" / "foundation").symlink_to(ROOT / "models" / "foundation")
    params = yaml.safe_load(Path("params.yaml").read_text())
    edit(params)
    Path("params.yaml").write_text(yaml.safe_dump(params))
    code, output = run("check")
    assert code == 1
    assert message in output


@pytest.mark.parametrize(
    ("block", "changed", "message"),
    [
        ("generate_images", {"max_images": 3}, "max_images is 3, and label space data/labels/toybox.yaml has 6 unseen"),
        (
            "tune_text_encoder",
            {"num_updates": 80, "held_out_prompts": 1000},
            "held_out_prompts is 1000, and 210 prompts will be written",
        ),
        ("prepare_dataset", {"annotate_unseen": True}, "set validate_data.annotated_unseen to true as well"),
        ("filter_images", {"threshold": 1.0}, "less than 1"),
    ],
)
def test_check_finds_settings_under_which_a_stage_would_stop(
    project: Path, block: str, changed: dict[str, Any], message: str
) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params[block].update(changed)
    Path("params.yaml").write_text(yaml.safe_dump(params))
    code, output = run("check")
    assert code == 1
    assert message in output


@pytest.mark.parametrize("stage", ["tune_unet", "tune_text_encoder"])
def test_check_refuses_tuning_with_a_generator_that_cannot_be_tuned(project: Path, stage: str) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    model = params["generator"]["model"]
    params["generator"] = {"name": "diffusers", "model": model, "image_px": 64, "guidance": {"kind": "none"}}
    for other in ("tune_unet", "tune_text_encoder"):
        params[other]["num_updates"] = 7 if other == stage else 0
    Path("params.yaml").write_text(yaml.safe_dump(params))
    code, output = run("check")
    assert code == 1
    assert f"{stage}.num_updates is 7, and generator diffusers cannot tune: the pipelines of that library" in output
    assert "set it to 0" in output


def test_check_refuses_photos_for_a_unet_that_cannot_learn_from_them(project: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    start = f"tune_unet.num_updates is {params['tune_unet']['num_updates']}, and"
    params["generator"]["few_step"] = {"model": "ByteDance/Hyper-SD", "file": "Hyper-SD15-4steps-lora.safetensors"}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    code, output = run("check")
    assert code == 1
    assert f"{start} generator.few_step is set" in output

    del params["generator"]["few_step"]
    params["generator"] |= {"image_px": 128, "dtype": "float16"}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    code, output = run("check")
    assert code == 1
    assert f"{start} prepare_dataset.image_px is 64: the UNet would learn the blur of photos" in output
    params["generator"]["image_px"] = 64
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert f"{start} generator.dtype is float16" in run("check")[1]

    params["generator"]["dtype"] = "float32"
    labels = [{"name": name, "seen": False} for name in ("kite", "boat", "clock")]
    Path("data/labels/unseen.yaml").write_text(yaml.safe_dump({"name": "unseen", "labels": labels}))
    params["label_space"] = "data/labels/unseen.yaml"
    params["train_classifier"]["train_on"] = ["synthetic"]
    params["fit_thresholds"]["source"] = "synthetic"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    code, output = run("check")
    assert code == 1
    assert f"{start} label space data/labels/unseen.yaml has no seen label, so no photo is annotated" in output


def test_check_reads_the_annotations_of_own_photos(project: Path) -> None:
    (project / "models").mkdir()
    (project / "models" / "foundation").symlink_to(ROOT / "models" / "foundation")
    photos = project / "photos"
    photos.mkdir()
    for name in "abc":
        (photos / f"{name}.jpg").write_bytes(b"no image, which is found where it is read")
    table = project / "labels.csv"
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["prepare_dataset"] = {
        "name": "folder",
        "images": str(photos),
        "annotations": str(table),
        "shard_size": 10,
    }
    Path("params.yaml").write_text(yaml.safe_dump(params))
    table.write_text("image,labels\na.jpg,boat\nb.jpg,cup\nc.jpg,car\n")
    assert run("check")[0] == 0
    for rows, message in {
        "a.jpg,bot": "Did you mean 'boat'?",
        "a.jpg,car\nb.jpg,boat": "photos annotated for every label that show an unseen one: 1 ",
        "a.jpg,boat\nb.jpg,cup": "no photo is left for train",
    }.items():
        table.write_text(f"image,labels\n{rows}\n")
        code, output = run("check")
        assert code == 1
        assert message in output
    table.write_text("image,boat,cup,car\na.jpg,,,\nb.jpg,,,\n")
    code, output = run("check")
    assert code == 1
    assert "labels.csv annotates no photo: write 1 where one shows a label" in output


def test_damaged_figures_are_named(project: Path) -> None:
    Path("reports").mkdir()
    Path("reports/metrics.json").write_text("{")
    for command in ("results", "status"):
        code, output = run(command)
        assert (code, "metrics.json is damaged" in output) == (1, True), output


def test_status_explains_faulty_settings(project: Path) -> None:
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("threshold: 0.9", "treshold: 0.9"))
    code, output = run("status")
    assert code == 1
    assert "treshold" in output


def test_status_leads_to_doctor_where_weights_are_missing(project: Path) -> None:
    (line,) = (line for line in run("status")[1].splitlines() if line.startswith("weights"))
    assert line.endswith("models/foundation/toybox/backbone: `tailorset doctor` has the remedy")


def test_commands_say_that_the_server_does_not_answer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for words in (["compare"], ["promote"], ["rollback", "x"], ["status"], ["predict", "photos", "-o", "x.csv"]):
        code, output = run(*words)
        output = " ".join(output.split())
        assert code == (0 if words == ["status"] else 1), output
        assert "MLflow at http://127.0.0.1:9 failed" in output
        assert "correct MLFLOW_TRACKING_URI" in output
        assert "secret" not in output


@pytest.mark.parametrize(
    ("deps", "is_earlier"),
    [({"models/classifier": "deleted"}, False), ({"params.yaml": {"seed": "modified"}}, True)],
)
def test_results_are_of_earlier_settings_only_where_something_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch, deps: dict[str, Any], is_earlier: bool
) -> None:
    write_results(project / "reports")
    outs = {"changed outs": {"reports/x": "deleted"}}
    said = json.dumps({"evaluate": [{"changed deps": deps}, outs, "always changed"]})
    answer = subprocess.CompletedProcess([], 0, stdout=said, stderr="")
    monkeypatch.setattr("tailorset.commands.status.subprocess.run", lambda *_, **__: answer)
    assert ("results are of earlier settings" in run("status")[1].replace("\n", " ")) is is_earlier
