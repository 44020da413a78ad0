"""Runs and models stay with their project wherever it is copied or moved, and addresses are relative to it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import mlflow
import pytest

from tailorset.commands import doctor
from tailorset.project.tracking import Tracker, connect
from tailorset.project.tracking_store import (
    MisplacedError,
    UnreachableError,
    database_of,
    from_root,
    settle,
    tracking_uri,
)

COLUMNS = {
    "experiments": ["artifact_location"],
    "runs": ["artifact_uri"],
    "logged_models": ["artifact_location"],
    "model_versions": ["source", "storage_location"],
}


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracking_database: Path) -> Path:
    """A project with a run, a file of it, and a registered model."""
    for variable in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME"):
        monkeypatch.delenv(variable, raising=False)
    root = tmp_path / "original"
    root.mkdir()
    shutil.copy(tracking_database, root)
    register(root, tmp_path)
    return root


def register(root: Path, scratch: Path) -> None:
    """Track a stage that logs a file and registers a version of `tiny`."""
    code, figure = scratch / "model.py", scratch / "figure.txt"
    code.write_text(
        "import mlflow\n\nclass Model(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, model_input: list[int]) -> list[int]:\n        return model_input\n\n"
        "mlflow.models.set_model(Model())\n"
    )
    figure.write_text("a plot")
    with Tracker("register_model", root, {"seed": 0}) as tracker:
        tracker.log_file(figure)
        with mlflow.start_run(run_id=tracker.run_id):
            mlflow.pyfunc.log_model(
                name="model", python_model=str(code), registered_model_name="tiny", pip_requirements=["mlflow"]
            )
    assert tracker.is_up
    mlflow.set_tracking_uri("")


def addresses(database: Path) -> str:
    with sqlite3.connect(database) as connection:
        found = [connection.execute(f"SELECT {', '.join(names)} FROM {table}") for table, names in COLUMNS.items()]
        return "\n".join(str(row) for rows in found for row in rows)


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["copy", "a copy, with blanks & ümlauts 100 %", "of C#"])
def test_a_copied_project_reads_and_writes_its_own_artifacts(original: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / name
    shutil.copytree(original, copy)
    (copy / "mlartifacts/.copied").touch()
    before = files(original)
    register(copy, tmp_path)
    assert files(original) == before
    client = connect(copy)[0]
    shutil.rmtree(original)
    assert mlflow.pyfunc.load_model("models:/tiny/1").predict([7]) == [7]
    assert mlflow.pyfunc.load_model("models:/tiny/2").predict([7]) == [7]
    for run in client.search_runs(["1"], "attributes.run_name = 'register_model'"):
        assert Path(client.download_artifacts(run.info.run_id, "figure.txt")).read_text() == "a plot"
    assert str(original) not in addresses(copy / "mlflow.db")


def test_a_moved_project_goes_on_and_may_move_into_itself(original: Path, tmp_path: Path) -> None:
    original.rename(tmp_path / "moved")
    (tmp_path / "original" / "deep").mkdir(parents=True)
    inner = (tmp_path / "moved").rename(tmp_path / "original" / "deep" / "inner")
    for _ in range(2):
        settle(inner / "mlflow.db")
    assert addresses(inner / "mlflow.db").count("/original/deep/inner/mlartifacts") >= 4
    assert "deep/inner/deep" not in addresses(inner / "mlflow.db")
    register(inner, tmp_path)


def test_a_database_that_was_copied_alone_stops_with_both_places_and_the_command(
    original: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(original / "mlflow.db", copy)
    with pytest.raises(MisplacedError) as stopped:
        connect(copy)
    command = f"cp -a {original / 'mlartifacts'} {copy}"
    assert str(stopped.value) == f"{copy / 'mlflow.db'} was copied from {original} without its artifacts: `{command}`"
    (found,) = doctor.tracking(copy)
    assert (found.status, found.remedy) == ("error", f"`{command}`")
    shutil.copytree(original / "mlartifacts", copy / "mlartifacts")
    assert not list(doctor.tracking(copy))
    assert str(original) not in addresses(copy / "mlflow.db")


def test_a_damaged_database_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(
        UnreachableError, match=r"mlflow\.db cannot be read .*: restore it from a copy, or move it away"
    ):
        settle(tmp_path / "mlflow.db")


def test_artifacts_that_somebody_put_elsewhere_stay_there(tmp_path: Path, tracking_database: Path) -> None:
    database = tmp_path / "mlflow.db"
    shutil.copy(tracking_database, database)
    mlflow.MlflowClient(f"sqlite:///{database}").create_experiment("tailorset", artifact_location="s3://bucket/art")
    settle(database)
    assert "s3://bucket/art" in addresses(database)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sqlite:///mlflow.db", "sqlite:////project/mlflow.db"),
        ("sqlite:///runs/mlflow.db", "sqlite:////project/runs/mlflow.db"),
        ("sqlite:////else/mlflow.db", "sqlite:////else/mlflow.db"),
        ("mlruns", "file:///project/mlruns"),
        ("file:./mlruns", "file:///project/mlruns"),
        ("file:///else/mlruns", "file:///else/mlruns"),
        ("/else/mlruns", "/else/mlruns"),
        ("http://server:5000", "http://server:5000"),
        ("databricks", "databricks"),
        ("postgresql://user:word@server/mlflow", "postgresql://user:word@server/mlflow"),
    ],
)
def test_relative_addresses_are_relative_to_the_project(written: str, meant: str) -> None:
    assert from_root(written, Path("/project")) == meant


def test_a_stage_in_a_temporary_copy_tracks_in_the_project(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "sqlite:///mlflow.db")
    register(original, tmp_path)
    assert not list(copy.iterdir())
    assert database_of(tracking_uri(original)) == original / "mlflow.db"
    mlflow.set_registry_uri("")
