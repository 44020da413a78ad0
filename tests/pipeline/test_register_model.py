"""Registering makes a version for every change of settings, also for settings that occurred before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
import yaml

from pipeline import register_model
from tailorset.project.layout import CLASSIFIER, MODEL_CARD, NOVELTY, THRESHOLDS
from tailorset.project.versions import CONTENT, content_here
from tailorset.records import LabelSpace
from tailorset.registry import version
from tailorset.thresholds.rules import LabelRule, Thresholds
from tests.registered import MEASUREMENT
from tests.small_project import run

ROOT = Path(__file__).resolve().parents[2]


def test_going_back_to_earlier_settings_registers_again(tmp_path: Path) -> None:
    """DVC's run cache would restore the stage's files and register nothing."""
    outs = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["register_model"]["outs"]
    paths = [next(iter(out)) if isinstance(out, dict) else out for out in outs]
    command = "echo once more for $DVC_STAGE >> registered.txt && " + " && ".join(
        f"cp params.yaml {path}" for path in paths
    )
    stage = {"cmd": command, "deps": ["code.txt"], "params": ["seed"], "outs": outs}
    (tmp_path / "models").mkdir()
    (tmp_path / "code.txt").write_text("code")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"register_model": stage}}))
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "dvc", "init", "--quiet")
    for seed in (1, 2, 1, 1):
        (tmp_path / "params.yaml").write_text(f"seed: {seed}\n")
        run(tmp_path, "dvc", "repro")
    assert (tmp_path / "registered.txt").read_text().count(
        "once more for register_model\n"
    ) == 3  # and not for the last, unchanged one


@pytest.mark.parametrize("is_point", [False, True])
def test_challenger_is_what_is_in_the_project_and_no_point_of_a_sweep(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_point: bool
) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    client.create_registered_model("tiny")
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    for path in (CLASSIFIER / "config.json", THRESHOLDS, NOVELTY, MODEL_CARD):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    Path("dvc.lock").touch()
    monkeypatch.setattr(version, "log_model", lambda name, *_: client.create_model_version(name, str(project)).version)
    run_id = client.create_run("0").info.run_id
    root = project.resolve() / ("elsewhere" if is_point else "")
    stage = SimpleNamespace(
        params=SimpleNamespace(model_name="tiny"),
        label_space=SimpleNamespace(names=()),
        root=root,
        tracker=SimpleNamespace(run_id=run_id, experiment_id="0", parent_id=run_id, present=lambda *_: None),
    )
    register_model.register_and_present(stage, MEASUREMENT, {})
    assert client.get_registered_model("tiny").aliases == ({} if is_point else {"challenger": 1})
    tags = client.get_model_version("tiny", "1").tags
    assert tags[CONTENT] == content_here()
    assert {tags["val.zsl_map"], tags["val.gzsl_map"], tags["val.set"]} == {"0.510000", "0.610000", "c" * 64}
    assert client.get_model_version("tiny", "1").description == "{}"
    assert ("a point of a sweep" in capsys.readouterr().out) == is_point
    mlflow.set_tracking_uri("")


def test_a_classifier_of_another_label_file_is_not_registered() -> None:
    """The stage can be run alone after params.yaml has named another label file."""
    labels = [{"name": name, "seen": name == "ball"} for name in ("cup", "key", "ball")]
    space = LabelSpace.model_validate({"name": "sub", "labels": labels})
    rule = LabelRule(1.0, 0.0, 0.5, 0.4, 0.6)
    version.check_made_for(space, Thresholds(dict.fromkeys(space.names, rule)))
    with pytest.raises(ValueError, match=r"not of the labels of sub in params\.yaml: it alone has star\. `make run`"):
        version.check_made_for(space, Thresholds(dict.fromkeys([*space.names, "star"], rule)))
