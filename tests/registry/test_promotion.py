"""From challenger to champion and back, by the command: what moves, what is refused, what is remembered."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from tailorset import cli
from tailorset.cli.models import champion_uri
from tailorset.commands.status import registry_line
from tailorset.images.codec import encode_png
from tailorset.inference.versions import TRAINING
from tailorset.project.versions import ADDED, CONTENT, content_here
from tailorset.records import LabelSpace
from tailorset.registry.measurement import Measurement, val_tags
from tailorset.registry.version import lineage
from tailorset.storage.shards import sha256, write_shard
from tests.registered import MEASUREMENT

NAME = "tailorset-tiny"  # of data/labels/tiny.yaml
Register = Callable[..., str]
BETTER = replace(MEASUREMENT, val_maps={"zsl/map": 0.52, "gzsl/map": 0.63})
WORSE = replace(
    MEASUREMENT, val_maps={"zsl/map": 0.4, "gzsl/map": 0.6}, average_precision={"tea cup": 0.4, "ball": 0.7}
)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, arguments, terminal_width=200)
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def _tiny_labels(project: Path, label_space: LabelSpace) -> None:
    """Labels of params.yaml are those that the registered classifier knows."""
    params = (project / "params.yaml").read_text().replace("labels/toybox.yaml", "labels/tiny.yaml")
    (project / "params.yaml").write_text(params)
    (project / "data/labels/tiny.yaml").write_text(yaml.safe_dump(label_space.model_dump(mode="json")))


@pytest.fixture
def client(project: Path) -> mlflow.MlflowClient:
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    client.create_registered_model(NAME)
    return client


@pytest.fixture
def register(project: Path, registry: Path, client: mlflow.MlflowClient) -> Register:
    """Register the tiny classifier once more, as measured otherwise, as a new challenger."""
    logged = next((registry / "mlartifacts").rglob("MLmodel")).parent

    def register(measured: Measurement | None = MEASUREMENT, alias: str = "challenger") -> str:
        folder = project / "versions" / str(len(client.search_model_versions(f"name='{NAME}'")) + 1)
        shutil.copytree(logged, folder)
        (folder / "artifacts" / "measured.json").unlink()
        if measured:
            measured.save(folder / "artifacts" / "measured.json")
        number = str(client.create_model_version(NAME, str(folder)).version)
        client.set_registered_model_alias(NAME, alias, number)
        return number

    return register


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions are taken to answer: asking one in a process of its own takes ten seconds."""
    monkeypatch.setattr("tailorset.registry.promotion.request_problem", lambda version: "")


def champion(client: mlflow.MlflowClient) -> str:
    return str(client.get_model_version_by_alias(NAME, "champion").version)


@pytest.mark.usefixtures("answering")
def test_there_and_back_again(register: Register, client: mlflow.MlflowClient) -> None:
    register()
    code, output = run("promote")
    assert code == 0, output
    assert "raw CLIP" in output
    assert "+20.00" in output
    assert f"models:/{NAME}@champion is now version 1" in output
    code, output = run("promote")
    assert (code, champion(client)) == (1, "1")
    assert "models:/tailorset-tiny/1 is the champion already" in output

    register(BETTER)
    code, output = run("promote", "--dry-run")
    assert (code, champion(client)) == (0, "1")
    assert "Nothing was changed" in output
    code, output = run("promote")
    assert (code, champion(client)) == (0, "2")
    assert "champion, version 1" in output

    code, output = run("rollback", "hats are cups")
    assert (code, champion(client)) == (0, "1"), output
    code, output = run("promote")  # version 2 still is the challenger, and as good as it was
    assert (code, champion(client)) == (1, "1")
    assert "it was the champion and was rolled back: hats are cups" in output
    code, output = run("rollback", "again")
    assert (code, champion(client)) == (1, "1")
    assert "models:/tailorset-tiny/1 replaced no version" in output


@pytest.mark.usefixtures("answering")
def test_a_version_whose_training_did_not_help_says_so_and_is_no_first_champion(
    project: Path, register: Register, client: mlflow.MlflowClient
) -> None:
    figures = {"zsl/map": 0.3, "gzsl/map": 0.4}
    trained = {
        f"val/{kind}/{key}": value for kind in ("raw_clip", "start", "trained") for key, value in figures.items()
    }
    (project / "dvc.lock").write_text("schema: '2.0'\n")
    tag = lineage({"best_epoch": -1} | trained)[TRAINING]
    val_maps = {key: value + 1e-7 for key, value in MEASUREMENT.val_clip_maps.items()}
    number = register(replace(MEASUREMENT, val_maps=val_maps))
    client.set_model_version_tag(NAME, number, TRAINING, tag)
    code, output = run("promote")
    words = " ".join(output.split())
    assert code == 1
    assert (
        "Note: training = Training did not help: no epoch beats raw CLIP on val, so the classifier is raw CLIP" in words
    )
    assert "ZSL mAP is 31.00 instead of 31.00, which is not above raw CLIP" in words
    assert TRAINING not in lineage({"best_epoch": 3} | trained)


@pytest.mark.usefixtures("answering")
def test_a_version_with_an_added_label_replaces_the_one_without_it_and_goes_back(
    register: Register, client: mlflow.MlflowClient
) -> None:
    register()
    assert run("promote")[0] == 0
    precision = MEASUREMENT.average_precision | {"drum": 0.6}
    grown = replace(
        MEASUREMENT, val_set="d" * 64, average_precision=precision, added={"drum": [0.6, 0.4]}, before=MEASUREMENT
    )
    client.set_model_version_tag(NAME, register(grown), ADDED, "drum")
    code, output = run("promote")
    assert (code, champion(client)) == (0, "2"), output
    assert "added drum: average precision on val is 60.0, raw CLIP's 40.0" in output
    assert "with drum added" in registry_line(NAME)
    assert champion_uri() == f"models:/{NAME}@champion"  # though the label file does not name it
    register(BETTER)
    code, output = run("promote", "--measure")
    assert (code, champion(client)) == (1, "2")
    assert "models:/tailorset-tiny/2 has drum added, of which data/real has no targets" in " ".join(output.split())
    code, output = run("rollback", "drums are noise")
    assert (code, champion(client)) == (0, "1"), output


@pytest.mark.usefixtures("answering")
def test_a_version_that_was_given_up_is_passed_over_on_the_way_back(
    register: Register, client: mlflow.MlflowClient
) -> None:
    for measured in (MEASUREMENT, BETTER):
        register(measured)
        assert run("promote")[0] == 0
    assert run("promote", "--version", "1", "--margin", "100")[0] == 0  # now 1 replaced 2, which replaced 1
    code, output = run("rollback", "one is slow")
    assert (code, champion(client)) == (0, "2"), output
    code, output = run("rollback", "two as well")
    assert (code, champion(client)) == (1, "2")
    assert "replaced no version that is still good" in output


@pytest.mark.usefixtures("answering")
def test_a_champion_that_was_never_measured_is_an_objection_that_force_overrides(
    register: Register, client: mlflow.MlflowClient
) -> None:
    register(None, alias="champion")
    register(BETTER)
    code, output = run("promote")
    assert (code, champion(client)) == (1, "1")
    assert "Against it: models:/tailorset-tiny/1 does not say what was measured of it" in " ".join(output.split())
    assert "raw CLIP" in output  # what its figures stand beside
    assert "champion, version" not in output
    assert run("promote", "--force", "  ")[0] == 1  # no reason
    code, output = run("promote", "--force", "the first one was made elsewhere")
    assert (code, champion(client)) == (0, "2"), output
    for blank in ("", "  "):
        code, output = run("rollback", blank)
        assert (code, champion(client)) == (1, "2")
        assert "say why" in output


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("unmeasured", ["1", "2"])
def test_the_way_back_is_open_if_one_of_the_two_was_never_measured_or_is_damaged(
    unmeasured: str, project: Path, register: Register, client: mlflow.MlflowClient
) -> None:
    register(alias="champion")
    register(BETTER)
    assert run("promote")[0] == 0
    (project / "versions" / unmeasured / "artifacts" / "measured.json").unlink()
    code, output = run("rollback", "it fails")
    assert (code, champion(client)) == (0, "1"), output


@pytest.mark.usefixtures("answering")
def test_a_worse_one_is_refused_or_forced_with_a_reason_that_is_kept(
    register: Register, client: mlflow.MlflowClient
) -> None:
    register(alias="champion")
    register(WORSE)
    code, output = run("promote")
    assert (code, champion(client)) == (1, "1")
    assert "ZSL mAP is 40.00 instead of 51.00, a loss of more than 0.5 points" in output
    assert "1 label lost precision on test, in points: tea cup -10.0" in output
    assert run("promote", "--margin", "12", "--dry-run")[0] == 0
    code, output = run("promote", "--force", "the old one leaks memory")
    assert (code, champion(client)) == (0, "2"), output
    tags = client.get_model_version(NAME, "2").tags
    assert tags["champion.forced"] == "the old one leaks memory"
    assert tags["champion.replaced"] == "1"


@pytest.mark.usefixtures("answering")
def test_a_challenger_that_is_not_what_is_in_models_is_refused_and_the_right_version_named(
    register: Register, client: mlflow.MlflowClient, registry: Path, project: Path
) -> None:
    """Settings A, then B; back at A, or after `dvc exp apply`, models/ holds A again and nothing was registered."""
    shutil.copytree(registry / "models", project / "models")
    for content in (content_here(), "of B"):
        client.set_model_version_tag(NAME, register(), CONTENT, content)
    said = "version 2 is not what is in models/, which is version 1: `tailorset promote --version 1`"
    assert f"NOT the challenger: {said}" in registry_line(NAME)
    code, output = run("promote")
    assert code == 1
    assert f"Against it: {said}" in " ".join(output.split())
    assert run("promote", "--version", "1")[0] == 0
    assert champion(client) == "1"
    (project / "models/thresholds.json").write_text("{}")
    assert "which is not registered: `dvc repro --force --single-item register_model`" in registry_line(NAME)
    client.set_model_version_tag(NAME, "2", CONTENT, content_here())
    assert "NOT" not in registry_line(NAME)
    assert run("promote")[0] == 0


@pytest.mark.usefixtures("answering")
def test_the_best_of_a_sweep_on_val_is_promoted_whichever_was_last(
    register: Register, client: mlflow.MlflowClient
) -> None:
    on_other_photos = replace(BETTER, val_set="d" * 64, val_maps={"zsl/map": 0.9, "gzsl/map": 0.9})
    without_figures = replace(MEASUREMENT, val_set="", val_maps={})
    of_other_unseen = replace(on_other_photos, val_set=MEASUREMENT.val_set, unseen=["tea cup", "ball"])
    for measured in (on_other_photos, without_figures, MEASUREMENT, BETTER, of_other_unseen, WORSE):
        number = register(measured)
        for key, value in val_tags(measured).items():
            client.set_model_version_tag(NAME, number, key, value)
    code, output = run("promote", "--best")
    assert (code, champion(client)) == (0, "4"), output
    assert "3 versions left out: other photos or unseen labels, added labels, or rolled back" in output
    assert run("promote", "--best", "--version", "3")[0] == 1
    assert run("promote", "--best")[0] == 1  # it is the champion already
    assert champion(client) == "4"


@pytest.mark.usefixtures("answering")
def test_versions_of_other_labels_are_neither_promoted_nor_gone_back_to(
    register: Register, client: mlflow.MlflowClient
) -> None:
    register(replace(MEASUREMENT, average_precision={"tea cup": 0.5, "fish": 0.5}), alias="champion")
    register(BETTER)
    assert run("promote", "--force", "other labels from now on")[0] == 0
    code, output = run("rollback", "no")
    assert (code, champion(client)) == (1, "2")
    assert "has other labels than models:/tailorset-tiny/2: it alone has fish and it lacks ball" in output
    code, output = run("promote", "--version", "1", "--force", "back")
    assert (code, champion(client)) == (1, "2")
    assert "models:/tailorset-tiny/1 is not of the labels of tiny: it alone has fish and it lacks ball" in output


def test_a_champion_of_the_name_of_before_is_pointed_to(client: mlflow.MlflowClient, register: Register) -> None:
    client.create_registered_model("tailorset")
    client.create_model_version("tailorset", client.get_model_version(NAME, register()).source)
    client.set_registered_model_alias("tailorset", "champion", "1")
    code, output = run("serve", "--port", "0")
    assert code == 1
    assert "`--model models:/tailorset@champion` uses it" in output
    client.delete_registered_model(NAME)
    assert "`model_name: tailorset` in params.yaml goes on with it" in registry_line(NAME)


def test_only_a_version_that_answers_a_real_request_becomes_champion(
    register: Register, client: mlflow.MlflowClient, project: Path
) -> None:
    register()
    code, output = run("promote")
    assert (code, champion(client)) == (0, "1"), output
    register(BETTER)
    (project / "versions/2/artifacts/classifier/classifier.safetensors").write_bytes(b"broken")
    code, output = run("promote")
    assert (code, champion(client)) == (1, "1")
    assert "it does not answer a request" in output
    assert "does not hold a usable classifier" in output


@pytest.mark.usefixtures("answering")
def test_a_champion_of_other_photos_is_measured_on_these(
    register: Register, client: mlflow.MlflowClient, project: Path
) -> None:
    """Twelve photos of val and test each, on which the challenger was measured and the champion was not."""
    rng = np.random.default_rng(0)
    images = [(f"i{n}", encode_png(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))) for n in range(24)]
    write_shard(project / "data/real/shards/test.tar", images)
    rows = [
        {"image_id": key, "split": ("val", "test")[n % 2], "shard": "test.tar", "sha256": sha256(png)}
        for n, (key, png) in enumerate(images)
    ]
    pd.DataFrame(rows).to_parquet(project / "data/real/manifest.parquet")
    shown = {"tea cup": np.arange(24, dtype=np.int8) // 3 % 2, "ball": np.arange(24, dtype=np.int8) % 3 == 0}
    table = pd.DataFrame({"image_id": [key for key, _ in images], **shown}).astype({"ball": np.int8})
    table.to_parquet(project / "data/real/targets.parquet")

    from tailorset.inference.versions import find_version
    from tailorset.registry.promotion import _measure

    register(replace(MEASUREMENT, val_set="b" * 64), alias="champion")
    here = _measure(find_version(f"models:/{NAME}@champion"))
    assert here.num_photos == 12
    register(replace(here, val_maps={key: value + 0.01 for key, value in here.val_maps.items()}))
    code, output = run("promote")
    assert (code, champion(client)) == (1, "1")
    assert "other val photos (bbbbbbbb)" in output
    code, output = run("promote", "--measure")
    assert (code, champion(client)) == (0, "2"), output
    assert output.count("+1.00") == 2


@pytest.mark.usefixtures("answering")
def test_versions_without_a_measurement_and_empty_registries_name_the_remedy(
    project: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (("promote",), ("rollback", "why")):
        code, output = run(*command)
        assert code == 1
        assert "is not in the registry" in output
        assert "`dvc repro --force --single-item register_model` registers a challenger" in output
    register(None)
    code, output = run("promote")
    assert code == 1
    assert "models:/tailorset-tiny/1 does not say what was measured of it" in output
    (project / "mlflow.db").unlink()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    code, output = run("promote")
    assert code == 1
    assert "There is no model registry in" in output
    assert not (project / "mlflow.db").exists()


def test_files_of_a_version_and_photos_that_are_gone_are_named_with_the_remedy(
    project: Path, register: Register, photos: Path, client: mlflow.MlflowClient
) -> None:
    register(alias="champion")
    shutil.rmtree(project / "data" / "real", ignore_errors=True)
    register(BETTER)
    code, output = run("promote", "--measure")
    assert code == 1
    assert "data/real/manifest.parquet is missing: `dvc pull` or `dvc checkout` restores it" in output
    shutil.rmtree(project / "versions" / "1")
    code, output = run("predict", str(photos), "-o", "out.csv")
    assert code == 1
    assert "artifacts of models:/tailorset-tiny/1 is not where the registry has it" in output
    assert "`dvc repro --force --single-item register_model` registers what is in models/" in output
