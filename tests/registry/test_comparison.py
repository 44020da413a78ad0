"""Runs next to each other, as MLflow and evaluate's tables describe them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from tailorset.cli import app
from tailorset.evaluation.comparison import Method, all_scores, comparison_metrics, per_label_table
from tailorset.evaluation.results import CLIP, OURS
from tailorset.project.layout import PER_LABEL, SCORES
from tailorset.project.tracking import EXECUTION_TAG, connect
from tailorset.records import Label, LabelSpace
from tailorset.registry.alternatives import find_alternatives
from tailorset.registry.comparison import compare

NUM_PHOTOS = 200


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracking_database: Path) -> Path:
    """A folder with an empty tracking database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(tracking_database, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def space() -> LabelSpace:
    labels = [Label(name=name, seen=name in ("cat", "dog")) for name in ("cat", "dog", "fish", "bird", "key")]
    return LabelSpace(name="animals", labels=tuple(labels))


def targets(space: LabelSpace, num_unseen: int = NUM_PHOTOS) -> Tensor:
    """Return (N, L); only the first `num_unseen` photos may show an unseen label."""
    shown = (torch.rand(NUM_PHOTOS, len(space.names), generator=torch.Generator().manual_seed(0)) < 0.3).long()
    shown[num_unseen:, space.columns(space.unseen)] = 0
    return shown


def scores(shown: Tensor, noise: float) -> Tensor:
    return shown + noise * torch.randn(shown.shape, generator=torch.Generator().manual_seed(1))


def log_run(
    root: Path,
    space: LabelSpace,
    name: str,
    noise: float,
    first_photo: int = 0,
    num_unseen: int = NUM_PHOTOS,
    **params: str,
) -> str:
    """Log an execution as `evaluate` and `register_model` do; return its id."""
    shown = targets(space, num_unseen)
    client, experiment = connect(root)
    run = client.create_run(experiment, tags={EXECUTION_TAG: name, "mlflow.runName": name})
    methods = [Method(row, scores(shown, noise)) for row in (CLIP, OURS)]
    ids = [f"photo-{first_photo + number}" for number in range(NUM_PHOTOS)]
    SCORES.parent.mkdir(parents=True, exist_ok=True)
    all_scores(methods, shown, ids, space.names).to_parquet(SCORES, index=False)
    per_label_table(methods, shown, space).to_csv(PER_LABEL, index=False)
    for path in (SCORES, PER_LABEL):
        client.log_artifact(run.info.run_id, str(path))
    for key, value in {"seed": "0", **params}.items():
        client.log_param(run.info.run_id, key, value)
    for key, value in comparison_metrics(methods, shown, space, [3]).items():
        client.log_metric(run.info.run_id, key, value)
    return run.info.run_id


def output(*words: str) -> str:
    result = CliRunner().invoke(app, ["compare", *words], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_figures_are_those_of_evaluate_and_the_better_run_is_better_on_the_same_photos(
    root: Path, space: LabelSpace
) -> None:
    log_run(root, space, "plain", 0.8, epochs="4")
    better = log_run(root, space, "long", 0.5, epochs="8")
    comparison = compare(["plain", better], root)
    row = {
        cells[0]: cells[1:] for cells in zip(*(column.cells for column in comparison.figures().columns), strict=True)
    }
    plain, long, difference = row["ZSL mAP"]
    for text, execution in ((plain, comparison.executions[0]), (long, comparison.executions[1])):
        assert str(text).startswith(f"{100 * execution.metrics['zsl/map']:.1f} [")
    low, high = map(float, re.findall(r"\[(.+), (.+)\]", str(difference))[0])
    assert 0 < low < high
    assert list(row) == ["ZSL mAP", "ZSL F1@3", "GZSL mAP", "GZSL F1@3"]


def test_names_and_values_with_brackets_or_colons_are_shown_as_they_are(root: Path, space: LabelSpace) -> None:
    log_run(root, space, "train_on=[real] (zip-bawd)", 0.8, images="[/data/photos]")
    log_run(root, space, "train_on=[/real] (a:star:b)", 0.8, images=":star:")
    shown = output()
    for text in ("train_on=[real] (zip-bawd)", "train_on=[/real] (a:star:b)", "[/data/photos]", " :star: "):
        assert text in shown


def test_only_settings_that_differ_are_listed(root: Path, space: LabelSpace) -> None:
    log_run(root, space, "plain", 0.8, epochs="4", same="yes")
    log_run(root, space, "long", 0.8, epochs="8", same="yes", new="1")
    settings = compare([], root).settings()
    keys, plain, long = (list(column.cells) for column in settings.columns)
    assert (keys, plain, long) == (["epochs", "new"], ["4", "-"], ["8", "1"])


def test_other_photos_have_figures_without_intervals_and_the_reason(root: Path, space: LabelSpace) -> None:
    log_run(root, space, "plain", 0.8)
    log_run(root, space, "elsewhere", 0.5, first_photo=1000)
    text = output("plain", "elsewhere")
    assert "no intervals: elsewhere has other test photos" in text
    assert "[" not in next(line for line in text.splitlines() if "ZSL mAP" in line)


def test_damaged_scores_have_figures_without_intervals(root: Path, space: LabelSpace) -> None:
    for name in ("plain", "long"):
        log_run(root, space, name, 0.8)
    damaged = next(root.glob(f"**/artifacts/{SCORES.name}"))
    damaged.write_bytes(b"no table")
    assert "has no readable scores" in output("plain", "long")


def test_few_photos_of_unseen_labels_have_figures_without_intervals(root: Path, space: LabelSpace) -> None:
    log_run(root, space, "plain", 0.8, num_unseen=3)
    log_run(root, space, "long", 0.5, num_unseen=3)
    lines = output("plain", "long").splitlines()
    assert "[" not in next(line for line in lines if "ZSL mAP" in line and "GZSL" not in line)
    assert "[" in next(line for line in lines if "GZSL mAP" in line)


def test_runs_without_results_are_compared_by_name(root: Path) -> None:
    client, experiment = connect(root)
    for name, epochs in (("plain", "4"), ("long", "8")):
        run = client.create_run(experiment, tags={EXECUTION_TAG: name, "mlflow.runName": name})
        client.log_param(run.info.run_id, "epochs", epochs)
    text = output("plain", "long")
    assert "epochs" in text
    assert "mAP" not in text


@pytest.mark.parametrize("name", ["nan", "007"])
def test_a_label_may_look_like_no_name(root: Path, name: str) -> None:
    space = LabelSpace(
        name="odd", labels=(Label(name="cat", seen=True), Label(name=name, seen=False), Label(name="key", seen=False))
    )
    for run, noise in (("plain", 0.8), ("long", 0.5)):
        log_run(root, space, run, noise)
    assert "GZSL mAP" in output("plain", "long")


def test_the_page_names_all_runs_and_is_opened_on_request(
    root: Path, space: LabelSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [log_run(root, space, name, 0.8, epochs=name) for name in ("1", "2", "3")]
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda page: opened.append(page) or True)
    text = output("1", "2", "3", "--open", "--host", "http://mlflow:80/")
    (page,) = opened
    assert page in text
    assert page.startswith("http://mlflow:80/#/compare-runs?runs=")
    assert str(ids).replace("'", '"').replace(" ", "") in unquote(page)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["plain", "lomg"], "'lomg' is not the name of any of the runs: choose long"),
        (["plain", "plain"], "name two or more different runs"),
        (["plain"], "name two or more different runs"),
    ],
)
def test_runs_that_cannot_be_compared_are_named(root: Path, space: LabelSpace, words: list[str], expected: str) -> None:
    log_run(root, space, "plain", 0.8)
    log_run(root, space, "long", 0.8)
    result = CliRunner().invoke(app, ["compare", *words])
    assert result.exit_code == 1
    assert expected in result.output


def test_no_results_yet(root: Path) -> None:
    result = CliRunner().invoke(app, ["compare"])
    assert result.exit_code == 1
    assert "0 runs with results" in result.output


def test_without_a_database_nothing_is_compared_and_none_is_made(root: Path) -> None:
    (root / "mlflow.db").unlink()
    result = CliRunner().invoke(app, ["compare"], env={"COLUMNS": "300"})
    assert result.exit_code == 1
    assert f"There are no runs in {root}: `make run` makes one" in result.output
    assert not [path for path in root.iterdir() if path.name.startswith("mlflow.db")]


class TestAlternatives:
    """Runs of other settings beside the run of params.yaml, {"seed": 0, "epochs": 4}."""

    SETTINGS: ClassVar = {"seed": 0, "epochs": 4}

    def test_they_are_told_by_what_they_differ_in_and_by_whether_they_are_worse(
        self, root: Path, space: LabelSpace
    ) -> None:
        log_run(root, space, "present", 0.6, epochs="4")
        log_run(root, space, "as good", 0.6, epochs="2")
        log_run(root, space, "bad", 1.5, epochs="1")
        found = {one.name: one for one in find_alternatives(self.SETTINGS, root)}
        assert {name: dict(one.changes) for name, one in found.items()} == {
            "as good": {"epochs": "2"},
            "bad": {"epochs": "1"},
        }
        assert [found[name].is_worse for name in ("as good", "bad")] == [False, True]
        assert found["as good"].differences["ZSL mAP"].value == 0
        assert found["bad"].differences["GZSL mAP"].high < 0

    def test_runs_that_cannot_be_paired_are_left_out(self, root: Path, space: LabelSpace) -> None:
        log_run(root, space, "present", 0.6, epochs="4")
        log_run(root, space, "other photos", 0.6, first_photo=1000, epochs="2")
        log_run(root, space, "of another version", 0.6, epochs="2", new="1")
        assert find_alternatives(self.SETTINGS, root) == []

    def test_without_a_run_of_these_settings_there_is_nothing_to_compare_with(
        self, root: Path, space: LabelSpace
    ) -> None:
        log_run(root, space, "other", 0.6, epochs="2")
        assert find_alternatives(self.SETTINGS, root) == []

    def test_asking_makes_no_database(self, root: Path) -> None:
        (root / "mlflow.db").unlink()
        assert find_alternatives(self.SETTINGS, root) == []
        assert not (root / "mlflow.db").exists()
