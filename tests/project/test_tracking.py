from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from tailorset.project.execution import execution_key, execution_name, git_revision
from tailorset.project.mlflow_pages import LOCAL, pages_host, start_pages
from tailorset.project.tracking import EXPERIMENT, Tracker, TrackingWarning, connect, tracking_gaps
from tailorset.project.unlogged import gaps
from tailorset.registry.parent_run import SHEETS_FOLDER, data_sets, description, headline

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracking_database: Path) -> Path:
    """A project's folder with an empty tracking database."""
    for variable in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME"):
        monkeypatch.delenv(variable, raising=False)
    shutil.copy(tracking_database, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runs(root: Path) -> dict[str, Run]:
    client, experiment = connect(root)
    return {run.info.run_name: run for run in client.search_runs([experiment])}


def track(root: Path, stage: str) -> None:
    with Tracker(stage, root, {f"{stage}.size": 3}) as tracker:
        tracker.log_metrics({f"{stage}/loss": 0.5}, step=1)
        tracker.log_metrics({f"{stage}/loss": 0.25}, step=2)


def test_stages_of_one_execution_share_a_parent(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "sunny-dune")
    track(root, "filter_images")
    track(root, "evaluate")
    found = runs(root)
    assert set(found) == {"sunny-dune", "filter_images", "evaluate"}
    parent = found["sunny-dune"].info.run_id
    assert {found[name].data.tags["mlflow.parentRunId"] for name in ("filter_images", "evaluate")} == {parent}
    assert found["evaluate"].data.params == {"evaluate.size": "3"}
    assert found["evaluate"].data.metrics == {"evaluate/loss": 0.25}
    assert {run.info.status for run in found.values()} == {"FINISHED"}


def test_a_stage_logs_the_use_of_the_machine_while_it_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with Tracker("generate_images", root, {}) as tracker:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not tracker.client.get_run(tracker.run_id).data.metrics:
            time.sleep(0.2)
    found = runs(root)
    metrics = next(run.data.metrics for run in found.values() if run.info.run_name == "generate_images")
    assert 0 < metrics["system/system_memory_usage_percentage"] <= 100
    parent = found["generate_images"].data.tags["mlflow.parentRunId"]
    assert not next(run.data.metrics for run in found.values() if run.info.run_id == parent)


def test_another_execution_gets_another_parent(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        monkeypatch.setenv("DVC_EXP_NAME", name)
        track(root, "evaluate")
    assert {"one", "two"} <= set(runs(root))


def test_an_execution_without_an_experiment_is_known_by_its_process(root: Path) -> None:
    ask = "from tailorset.project.execution import execution_key; print(execution_key())"
    keys = {subprocess.check_output([sys.executable, "-c", ask], text=True) for _ in range(2)}
    assert len(keys) == 2
    assert execution_key() == execution_key()


def test_stages_that_are_started_by_hand_in_a_terminal_called_tailorset_are_executions_of_their_own(root: Path) -> None:
    ask = f"{sys.executable} -c 'from tailorset.project.execution import execution_key; print(execution_key())'"
    answer = subprocess.check_output(["bash", "-c", f"{ask}; {ask}; true", "tailorset"], text=True)
    assert len(set(answer.split())) == 2


def test_the_same_experiment_with_other_settings_is_another_parent(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow refuses a second value of a param, which ended the tracking of the second run."""
    monkeypatch.setenv("DVC_EXP_NAME", "sunny-dune")
    for threshold in (0.3, 0.7, 0.7):
        Path("params.yaml").write_text(f"filter_images: {{threshold: {threshold}}}\n")
        with Tracker("register_model", root, {}) as tracker:
            tracker.summarise({"filter_images.threshold": threshold}, {"zsl/map": threshold})
        assert tracker.is_up
    parents = {name: run for name, run in runs(root).items() if "mlflow.parentRunId" not in run.data.tags}
    assert sorted(run.data.params["filter_images.threshold"] for run in parents.values()) == ["0.3", "0.7"]
    assert set(parents) == {"sunny-dune", "sunny-dune #2"}


def test_a_deleted_experiment_is_seen_and_restored_by_the_next_run(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    track(root, "filter_images")
    client, experiment = connect(root)
    client.delete_experiment(experiment)
    (gap,) = tracking_gaps(root)
    assert gap.text == "MLflow's experiment 'tailorset' was deleted, with its runs"
    assert f"`mlflow experiments restore --experiment-id {experiment}`" in gap.remedy
    track(root, "evaluate")
    assert "had been deleted: restored" in capsys.readouterr().err
    assert {"filter_images", "evaluate"} <= set(runs(root))
    assert list(tracking_gaps(root)) == []


def test_what_was_not_logged_is_remembered_until_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(TrackingWarning), Tracker("register_model", root, {}) as tracker, tracker.noted(["a version"]):
        raise ConnectionError("registry away")
    (gap,) = gaps(root)
    assert str(gap) == (
        "NOT RECORDED: MLflow lacks of register_model a version (ConnectionError: registry away):"
        " `dvc repro --force --single-item register_model` records it"
    )
    assert list(tracking_gaps(root)) == [gap]
    track(root, "evaluate")
    assert list(gaps(root)) == [gap]
    track(root, "register_model")
    assert list(gaps(root)) == []


def test_what_a_point_of_a_sweep_lacks_outlasts_other_points_until_its_own_settings_are_recorded(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC runs points in copies of the project; the next one that MLflow took made all forget the one it did not."""

    def record(folder: Path, name: str, seed: int, *, up: bool) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("DVC_EXP_NAME", name)
        Path("params.yaml").write_text(f"seed: {seed}\n")
        for stage in ("train_classifier", "evaluate"):
            with Tracker(stage, root, {}) as tracker, tracker.noted(["a version"]):
                if not up:
                    raise ConnectionError("registry away")

    copies = [tmp_path_factory.mktemp("copy") for _ in range(2)]
    for folder, name, seed in ((root, "here", 0), (copies[0], "cold-fern", 1)):
        with pytest.warns(TrackingWarning):
            record(folder, name, seed, up=False)
    record(copies[1], "warm-oak", 2, up=True)
    *own, point = map(str, gaps(root))
    assert [line.split(" in the ")[0] for line in own] == [
        f"NOT RECORDED: MLflow lacks of {stage}" for stage in ("evaluate", "train_classifier")
    ]
    assert point.startswith(
        "NOT RECORDED: MLflow lacks parts of train_classifier, evaluate in the experiment cold-fern"
    )
    remedy = "dvc exp apply cold-fern && dvc repro --force --single-item train_classifier evaluate"  # as they ran
    assert f"`{remedy}` records it, `rm -r .work/unlogged/" in point

    record(root, "here", 0, up=True)
    assert list(map(str, gaps(root))) == [point]
    record(root, "", 1, up=True)  # as that remedy says
    assert list(gaps(root)) == []


def test_runs_are_named_after_what_differs_from_the_committed_settings(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = {"seed": 0, "label_space": "data/labels/toybox.yaml", "filter_images": {"threshold": 0.5, "name": "x"}}
    Path("params.yaml").write_text(yaml.safe_dump(committed))
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "params.yaml"], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], check=True)
    commit = f"run-{git_revision()[0][:8]}"
    names = []
    for change in ({}, {"filter_images": {"threshold": 0.7, "name": "x"}}, {"seed": 1}, {"label_space": "b/coco.yaml"}):
        Path("params.yaml").write_text(yaml.safe_dump(committed | change))
        names.append(execution_name())
    assert names == [commit, f"filter_images.threshold=0.7 ({commit})", f"seed=1 ({commit})", f"labels coco ({commit})"]
    monkeypatch.setenv("DVC_EXP_NAME", "dusty-alga")
    Path("params.yaml").write_text(yaml.safe_dump(committed | {"seed": "it's"}))
    track(root, "evaluate")
    assert "seed=its (dusty-alga)" in runs(root)


def test_the_parent_gets_all_params_and_metrics(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "sunny-dune")
    params = {f"block.key{number}": number for number in range(150)}
    with Tracker("register_model", root, {}) as tracker:
        tracker.summarise(params | {"long": "x" * 7000}, {"zsl/map": 0.5, "acceptance/before/judge": 0.25})
    parent = runs(root)["sunny-dune"]
    assert parent.data.metrics == {"zsl/map": 0.5, "acceptance/before/judge": 0.25}
    assert parent.data.params["block.key149"] == "149"
    assert len(parent.data.params["long"]) == 6000


def test_labels_of_any_script_are_metrics(root: Path) -> None:
    labels = ["cup", "men's shoe", "T-shirt", "杯子", "कुत्ता", "كوب", "stop_sign"]
    with Tracker("filter_images", root, {"generate_images.weakness.men's shoe": 1.5}) as tracker:
        tracker.log_metrics({f"filter/pass_rate/{label}": 0.5 for label in labels})
        assert tracker.is_up
    data = connect(root)[0].get_run(tracker.run_id).data
    assert len(data.metrics) == len(labels)
    assert {"filter/pass_rate/men_s shoe", "filter/pass_rate/T-shirt", "filter/pass_rate/杯子"} <= data.metrics.keys()
    assert data.params == {"generate_images.weakness.men_s shoe": "1.5"}


def test_artifacts_lie_in_the_project_wherever_a_stage_runs(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("copy"))
    figure = Path("plot.txt")
    figure.write_text("a plot")
    with Tracker("evaluate", root, {}) as tracker:
        tracker.log_file(figure)
    assert [path.read_text() for path in (root / "mlartifacts").rglob("plot.txt")] == ["a plot"]


def test_a_stage_that_fails_is_marked_failed(root: Path) -> None:
    def fails() -> None:
        with Tracker("evaluate", root, {}):
            raise RuntimeError("no images")

    with pytest.raises(RuntimeError, match="no images"):
        fails()
    assert runs(root)["evaluate"].info.status == "FAILED"


def test_without_a_server_the_stage_goes_on_and_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:p@ss@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = Tracker("evaluate", root, {"a": 1})
    with pytest.warns(TrackingWarning, match="MLflow at http://127.0.0.1:9 failed .* WITHOUT tracking"):
        tracker.__enter__()
    tracker.log_metrics({"zsl/map": 0.5})
    tracker.log_file(root / "missing.png")
    tracker.summarise({"a": 1}, {"zsl/map": 0.5})
    tracker.__exit__(None, None, None)
    assert not tracker.is_up
    said = capsys.readouterr().err
    assert said.count("WITHOUT tracking") == 1
    assert "ss@" not in said
    assert "NOT RECORDED: MLflow lacks of evaluate zsl/map, missing.png (" in said
    assert "`dvc repro --force --single-item evaluate` records it" in said


def test_mlflow_s_own_patience_is_cut_unless_the_user_set_it(root: Path) -> None:
    script = (
        "import os, pathlib; from tailorset.project.tracking import connect; connect(pathlib.Path.cwd());"
        "print(os.environ['MLFLOW_HTTP_REQUEST_TIMEOUT'], os.environ['MLFLOW_HTTP_REQUEST_MAX_RETRIES'])"
    )
    variables = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_HTTP")}
    said = subprocess.check_output(
        [sys.executable, "-c", script], cwd=root, env=variables | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5"}, text=True
    )
    assert said.split() == ["30", "5"]


def test_a_server_that_never_answers_costs_a_stage_a_moment(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are taken and left alone
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        start = time.monotonic()
        with pytest.warns(TrackingWarning, match="ReadTimeout"), Tracker("evaluate", root, {}) as tracker:
            tracker.log_metrics({f"metric/{number}": 0.5 for number in range(15)})
        assert time.monotonic() - start < 30  # and not for minutes
    assert "metric/0, metric/1," in (said := capsys.readouterr().err)
    assert "and 3 more" in said


def test_a_metric_mlflow_refuses_stops_the_tracking_only(root: Path) -> None:
    with Tracker("evaluate", root, {}) as tracker:
        with pytest.warns(TrackingWarning):
            tracker.log_metrics({"x" * 300: 0.5})
        assert not tracker.is_up


def test_the_cause_is_told_wherever_a_message_names_it(root: Path) -> None:
    listed = "".join(f"##### File {number} #####\n" for number in range(200))
    tracker = Tracker("evaluate", root, {})
    message = r"failures occurred .* \.\.\. .*Invalid path: outside the folder\)"
    with pytest.warns(TrackingWarning, match=message), tracker.tolerant():
        raise OSError(f"failures occurred while downloading:\n{listed}Invalid path: outside the folder")


def test_the_tracking_uri_is_honoured(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = root / "elsewhere" / "runs.db"
    elsewhere.parent.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}")
    (root / "mlflow.db").rename(elsewhere)
    track(root, "evaluate")
    assert not (root / "mlflow.db").exists()
    assert "evaluate" in runs(root)


def test_several_first_stages_can_open_the_database_at_once(root: Path) -> None:
    (root / "mlflow.db").unlink()
    script = (
        "from pathlib import Path; from tailorset.project.tracking import Tracker\n"
        f"with Tracker('evaluate', Path({str(root)!r}), {{}}) as tracker: assert tracker.is_up"
    )
    started = [subprocess.Popen([sys.executable, "-W", "error::UserWarning", "-c", script]) for _ in range(2)]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    client, experiment = connect(root)
    assert client.get_experiment(experiment).name == EXPERIMENT
    assert len(client.search_runs([experiment], "attributes.run_name = 'evaluate'")) == 2


@pytest.fixture(autouse=True)
def _untracked_afterwards() -> object:
    yield
    mlflow.set_tracking_uri("")


def test_what_a_run_writes_does_not_make_its_commit_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    for name in ("params.yaml", "dvc.lock", "reports/metrics.json"):
        Path(name).write_text("1")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], check=True)
    for name in ("dvc.lock", "reports/metrics.json"):
        Path(name).write_text("2")
    commit, dirty = git_revision()
    assert (len(commit), dirty) == (40, False)
    Path("params.yaml").write_text("2")
    assert git_revision() == (commit, True)


def test_a_parent_run_shows_its_results_first(root: Path) -> None:
    metrics = {"zsl/map": 0.5, "gzsl/map": 0.6, "baseline/clip/zsl/map": 0.35, "acceptance/after/judge": 0.4}
    (root / "dvc.lock").write_text("stages: {prepare_dataset: {outs: [{path: data/real, md5: 0a1b.dir}]}}")
    (root / "card.html").write_text("the card")
    (root / "kept.png").write_bytes(b"a picture")
    with Tracker("register_model", root, {}) as tracker:
        tracker.summarise({}, headline(metrics) | metrics)
        pictures = {"Kept": root / "kept.png"}
        text = description(metrics, ("tailorset-toybox", "3"), (tracker.experiment_id, tracker.parent_id), pictures)
        files = {"": [root / "card.html"], SHEETS_FOLDER: pictures.values()}
        tracker.present(text, data_sets(root / "dvc.lock"), files)
    client, experiment = connect(root)
    assert start_pages(root) == {
        "All runs": f"#/experiments/{experiment}/runs?workflowType=machine_learning",
        f"Latest run, {execution_name()}": (
            f"#/experiments/{experiment}/runs/{tracker.parent_id}?workflowType=machine_learning"
        ),
    }
    run = client.get_run(tracker.parent_id)
    assert "| raw CLIP | 35.0 | - | - | - |" in run.data.tags["mlflow.note.content"]
    assert "| ours | 50.0 | - | 60.0 | - |" in run.data.tags["mlflow.note.content"]
    assert "(#/models/tailorset-toybox/versions/3)" in run.data.tags["mlflow.note.content"]
    picture = f"![Kept](get-artifact?path=sheets%2Fsmall%2Fkept.png&run_uuid={tracker.parent_id})"
    assert picture in run.data.tags["mlflow.note.content"]
    assert sorted(run.data.metrics)[:2] == ["_headline/gzsl/map", "_headline/zsl/map"]
    assert [(used.dataset.name, used.dataset.digest) for used in run.inputs.dataset_inputs] == [("data/real", "0a1b")]
    assert [file.path for file in client.list_artifacts(tracker.parent_id)] == ["card.html", "sheets"]
    assert [file.path for file in client.list_artifacts(tracker.parent_id, "sheets")] == ["sheets/kept.png"]


@pytest.mark.parametrize(
    ("uri", "host"), [("https://me:secret@server/mlflow/", "https://server/mlflow"), ("sqlite:///other.db", LOCAL)]
)
def test_make_ui_starts_no_pages_where_a_server_has_them(uri: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert pages_host() == host
    commands = subprocess.check_output(["make", "--dry-run", "ui"], cwd=ROOT, text=True)
    assert ("mlflow ui" in commands) == (host == LOCAL)


def test_a_folder_that_cannot_be_written_to_is_a_gap(root: Path) -> None:
    shutil.rmtree(root / ".work", ignore_errors=True)
    (root / ".work").touch()
    (gap,) = tracking_gaps(root)
    assert "/.work'" in gap.text


def test_an_empty_address_is_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    (root / "mlflow.db").unlink()
    assert list(tracking_gaps(root)) == []
    assert not (root / "mlflow.db").exists()


def test_a_database_that_fails_after_it_was_opened_is_a_gap(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise MlflowException("no answer")

    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment", fails)
    (gap,) = tracking_gaps(root)
    assert "failed (no answer)" in gap.text
