"""MLflow for the pipeline: one parent run per pipeline execution, one child run per executed stage.

Tracking never stops a stage: when the server is down, the stage says so once, loudly, and goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock

from tailorset.project.execution import execution_key, execution_name, git_revision, settings_digest
from tailorset.project.tracking_store import (
    EXPERIMENT,
    TrackingError,
    artifacts_of,
    database_of,
    from_root,
    reached,
    settle,
    shorten,
    tracking_uri,
    without_passwords,
)
from tailorset.project.unlogged import Gap, clear, gaps, keep

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

EXECUTION_TAG = "tailorset.project.execution"
MAX_PARAM_CHARS = 6000  # MLflow refuses longer values
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}  # by default 8 x 120 seconds
SAMPLE_S = 10  # between samples of CPU, memory, disk and GPU; MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL overrides it


class TrackingWarning(UserWarning):
    """MLflow could not be reached or refused; the pipeline went on without it."""


def connect(root: Path) -> tuple[MlflowClient, str]:
    """A client and the id of the project's experiment; the first of several simultaneous callers sets the database up.

    Raises:
        ValueError: a local database was copied here without its artifacts.
        UnreachableError: the server or database cannot be used.
    """
    for variable, value in PATIENCE.items():
        os.environ.setdefault(variable, value)
    import mlflow  # slow to import: only stages that run pay for it

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # prints the traceback of what it raises
    uri = tracking_uri(root)
    mlflow.set_tracking_uri(uri)
    if registry_uri := os.environ.get("MLFLOW_REGISTRY_URI"):
        mlflow.set_registry_uri(from_root(registry_uri, root))
    database = database_of(uri)
    with reached(uri), _lock(root):
        if database:
            settle(database)
        client = mlflow.MlflowClient()  # opens the database already
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            location = artifacts_of(database) if database else None
            return client, client.create_experiment(EXPERIMENT, artifact_location=location)
        return client, experiment.experiment_id


def registry(root: Path) -> MlflowClient:
    """Return a client of the model registry; unlike `connect`, create no database.

    Raises:
        ValueError: there is no database here and no MLFLOW_TRACKING_URI.
        UnreachableError: the server or database cannot be used.
    """
    if not is_set_up(root):
        raise ValueError(
            f"There is no model registry in {root}: run `make run`, or `dvc repro --force --single-item"
            " register_model` after a checkout; MLFLOW_TRACKING_URI names one elsewhere."
        )
    return connect(root)[0]


def restore(client: MlflowClient, experiment_id: str) -> None:
    """Bring back a deleted experiment with its runs: its name stays taken, and MLflow adds no run to it."""
    if client.get_experiment(experiment_id).lifecycle_stage == "deleted":
        client.restore_experiment(experiment_id)
        print(f"MLflow's experiment {EXPERIMENT!r} had been deleted: restored, with its runs", file=sys.stderr)


def tracking_gaps(root: Path) -> Iterator[Gap]:
    """Yield what keeps, or kept, runs from being recorded in MLflow; create no database."""
    try:
        if is_set_up(root):
            client, experiment_id = connect(root)
            with reached(tracking_uri(root)):
                is_deleted = client.get_experiment(experiment_id).lifecycle_stage == "deleted"
            if is_deleted:
                remedy = f"the next run restores it, or `mlflow experiments restore --experiment-id {experiment_id}`"
                yield Gap(f"MLflow's experiment {EXPERIMENT!r} was deleted, with its runs", remedy)
    except TrackingError as error:
        yield Gap(error.text, error.remedy)
    yield from gaps(root)


def is_set_up(root: Path) -> bool:
    """Check that there is a store of runs; `connect` would create a database."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or (root / "mlflow.db").exists()


class Tracker:
    """The MLflow run of one stage: a context manager that opens it and closes it as FINISHED or FAILED."""

    def __init__(self, stage: str, root: Path, params: Mapping[str, Any]) -> None:
        self.stage, self.root, self.params = stage, root, params
        self.settings = settings_digest()
        self.client: MlflowClient | None = None
        self.monitor: SystemMetricsMonitor | None = None
        self.experiment_id = self.parent_id = self.run_id = self.cause = ""
        self.unlogged: dict[str, None] = {}  # metrics and files, in the order in which they should have been logged

    def __enter__(self) -> Self:
        with self.tolerant():
            client, experiment_id = connect(self.root)
            with _lock(self.root):
                restore(client, experiment_id)
            self.experiment_id, self.parent_id = experiment_id, _parent_run(client, experiment_id, self.root)
            tags = {"mlflow.runName": self.stage, "mlflow.parentRunId": self.parent_id, **_source_tags(self.stage)}
            self.run_id = client.create_run(experiment_id, tags=tags).info.run_id
            self.client = client
            write_batches(client, self.run_id, {}, self.params)
            self.monitor = _system_metrics(self.run_id)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "FINISHED" if kind is None else "FAILED"
        with self.tolerant():
            if self.monitor:
                self.monitor.finish()
            for run_id in (self.run_id, self.parent_id):
                if self.client:
                    self.client.set_terminated(run_id, status)
        if not self.is_up:
            lacking = list(self.unlogged) or ["its run"]
            print(keep(self.root, self.stage, lacking, self.cause, self.settings), file=sys.stderr)
        elif kind is None:
            clear(self.root, self.stage, self.settings)

    @property
    def is_up(self) -> bool:
        """True while this stage is tracked."""
        return self.client is not None

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Metrics of this stage's run."""
        self._log(self.run_id, metrics, step=step)

    def log_file(self, path: Path) -> None:
        """A figure or report, kept with this stage's run."""
        with self.noted([path.name]):
            if self.client:
                self.client.log_artifact(self.run_id, str(path))

    def summarise(self, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Copy params and metrics of the whole pipeline to the parent: cached stages make no run of their own.

        MLflow lists them in this order, and plots the first ones where it compares runs.
        """
        self._log(self.parent_id, metrics, params)

    def present(self, description: str, data_sets: Mapping[str, str], files: Mapping[str, Collection[Path]]) -> None:
        """Show results, data sets (path: digest) and files on the parent run, which a person opens first.

        files: by the folder of the run's artifacts, "" for the top.
        """
        from mlflow.entities import Dataset, DatasetInput

        with self.noted(["the description of the run"]):
            if self.client:
                self.client.set_tag(self.parent_id, "mlflow.note.content", description)
                inputs = [DatasetInput(Dataset(path, digest, "local", path)) for path, digest in data_sets.items()]
                self.client.log_inputs(self.parent_id, inputs)
                for folder, paths in files.items():
                    for path in paths:
                        self.client.log_artifact(self.parent_id, str(path), folder or None)

    def _log(
        self, run_id: str, metrics: Mapping[str, float], params: Mapping[str, Any] | None = None, step: int = 0
    ) -> None:
        with self.noted(metrics):
            if self.client:
                write_batches(self.client, run_id, metrics, params or {}, step)

    @contextlib.contextmanager
    def noted(self, names: Collection[str]) -> Iterator[None]:
        """Be `tolerant` while these are logged: if MLflow fails or is missing, the stage lists them at its end."""
        self.unlogged |= dict.fromkeys(names)
        with self.tolerant():
            yield
        if self.is_up:
            for name in names:
                del self.unlogged[name]

    @contextlib.contextmanager
    def tolerant(self) -> Iterator[None]:
        """Turn any error of MLflow into a loud warning that ends the tracking; the stage goes on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever MLflow, SQLAlchemy or HTTP raise, the stage goes on
            self.client = None
            self.cause = shorten(without_passwords(f"{type(error).__name__}: {error}"))
            warn_untracked(self.stage, self.root, self.cause)


def write_batches(
    client: MlflowClient, run_id: str, metrics: Mapping[str, float], params: Mapping[str, Any], step: int = 0
) -> None:
    """Log to a run in batches of the size MLflow takes: 1,000 metrics or 100 params."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    numbers = [Metric(mlflow_name(key), float(value), now, step) for key, value in metrics.items()]
    texts = [Param(key, value) for key, value in run_params(params).items()]
    for start in range(0, len(texts), 100):
        client.log_batch(run_id, params=texts[start : start + 100])
    for start in range(0, len(numbers), 1000):
        client.log_batch(run_id, metrics=numbers[start : start + 1000])


def run_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return flat settings as a run's params store them."""
    return {mlflow_name(key): str(value)[:MAX_PARAM_CHARS] for key, value in settings.items()}


def mlflow_name(key: str) -> str:
    """A metric or param under a name that MLflow takes: labels may have apostrophes and accents of their own."""
    plain = re.sub("['’]", "_", key)
    return re.sub(r"[^/\w.\- ]", lambda odd: f"_{ord(odd[0]):x}_", plain)


def warn_untracked(stage: str, root: Path, cause: str) -> None:
    """Say loudly that MLflow failed and that the products of the stage are unaffected."""
    message = (
        f"{stage}: MLflow at {without_passwords(tracking_uri(root))} failed ({cause}). "
        "The stage goes on WITHOUT tracking; its products are not affected. "
        "Check MLFLOW_TRACKING_URI; the stage says at its end what is missing and how to record it."
    )
    warnings.warn(message, TrackingWarning, stacklevel=3)
    print(f"\n{'!' * 80}\n{message}\n{'!' * 80}\n", file=sys.stderr)


def _parent_run(client: MlflowClient, experiment_id: str, root: Path) -> str:
    key, name = execution_key(), re.sub("['\"]", "", execution_name())
    revision, dirty = git_revision()
    with _lock(root):
        found = client.search_runs([experiment_id], f"tags.`{EXECUTION_TAG}` = '{key}'", max_results=1)
        if found:
            return found[0].info.run_id
        if before := len(client.search_runs([experiment_id], f"attributes.run_name LIKE '{name}%'")):
            name = f"{name} #{before + 1}"
        tags = {EXECUTION_TAG: key, "mlflow.runName": name, "git.commit": revision, "git.dirty": str(dirty).lower()}
        return client.create_run(experiment_id, tags=tags | _source_tags("dvc repro")).info.run_id


def _system_metrics(run_id: str) -> SystemMetricsMonitor:
    """Start the thread that logs the machine's use as `system/...`; stages shorter than one sample log none."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)  # says what it skips, at each stage
    monitor = SystemMetricsMonitor(run_id, sampling_interval=SAMPLE_S)
    monitor.start()
    return monitor


def _source_tags(name: str) -> dict[str, str]:
    return {"mlflow.source.name": name, "mlflow.source.type": "PROJECT"}


def _lock(root: Path) -> FileLock:
    path = root / ".work" / "mlflow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, timeout=120)
