"""`mlflow models serve`, as docs/guides/serving.md shows it: the stock server, without our own around the model."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest

from tailorset.inference.predictor import load_predictor
from tests.registered import scores_of

START_TIMEOUT_S = 120


@pytest.fixture
def url(registry: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a server of models:/tiny@champion, on a free port of this machine."""
    database = f"sqlite:///{registry / 'mlflow.db'}"
    mlflow.MlflowClient(database).set_registered_model_alias("tiny", "champion", "1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/tiny@champion"]
    command += ["--env-manager", "local", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow starts uvicorn by name
    variables = {"MLFLOW_TRACKING_URI": database, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PYTHONPATH": ""}
    variables["PATH"] = path
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | variables, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server does not answer:\n{log.read_text()[-4000:]}")


def test_a_base64_photo_in_dataframe_split_gets_the_predictor_s_scores(url: str, registry: Path, photos: Path) -> None:
    contents = [path.read_bytes() for path in sorted(photos.iterdir())]
    rows = [[base64.b64encode(content).decode()] for content in contents]
    body = json.dumps({"dataframe_split": {"columns": ["image"], "data": rows}}).encode()
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        predictions = json.load(answer)["predictions"]
    predictor = load_predictor(registry / "models" / "classifier", "cpu")
    said = [[row[f"score/{label}"] for label in predictor.labels] for row in predictions]
    np.testing.assert_allclose(said, scores_of(predictor, contents).numpy(), atol=1e-5)
