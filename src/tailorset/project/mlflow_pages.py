"""Addresses of MLflow's pages without the host: in a browser they are relative to any of its pages.

Without a workflow type, MLflow opens the pages of an experiment as those of a language model, without training runs.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, urlencode

from tailorset.project.tracking import EXECUTION_TAG, connect
from tailorset.project.tracking_store import without_passwords

TRAINING = "workflowType=machine_learning"
LOCAL = "http://127.0.0.1:5000"  # of `make ui`


def pages_host() -> str:
    """Return the address of MLflow's pages, without a password: of the server in MLFLOW_TRACKING_URI, or local."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return without_passwords(uri.rstrip("/")) if uri.startswith("http") else LOCAL


def runs_page(experiment_id: str) -> str:
    """Return the page with all runs."""
    return f"#/experiments/{experiment_id}/runs?{TRAINING}"


def run_page(experiment_id: str, run_id: str) -> str:
    """Return the page of a run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{TRAINING}"


def artifact_page(experiment_id: str, run_id: str, path: str) -> str:
    """Return the page on which an artifact of a run is shown."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{quote(path)}?{TRAINING}"


def artifact(run_id: str, path: str) -> str:
    """Return the address of an artifact's bytes."""
    return f"get-artifact?{urlencode({'path': path, 'run_uuid': run_id})}"


def version_page(name: str, version: str) -> str:
    """Return the page of a version of a registered model."""
    return f"#/models/{quote(name)}/versions/{version}"


def start_pages(root: Path) -> dict[str, str]:
    """Return {title: page} of what a person opens first: all runs, and the latest execution of the pipeline."""
    client, experiment_id = connect(root)
    latest = client.search_runs([experiment_id], f"tags.`{EXECUTION_TAG}` LIKE '%'", max_results=1)
    pages = {"All runs": runs_page(experiment_id)}
    return pages | {f"Latest run, {run.info.run_name}": run_page(experiment_id, run.info.run_id) for run in latest}
