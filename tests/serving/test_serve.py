"""The command: what it says when there is nothing to serve, and that it ends without losing a request."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import httpx2
import psutil
import pytest
import typer
from fastapi import FastAPI
from PIL import Image
from typer.testing import CliRunner

from tailorset.cli import app
from tailorset.cli.models import run_server


def run(*arguments: str) -> tuple[int, str]:
    answer = CliRunner().invoke(app, ["serve", *arguments])
    return answer.exit_code, " ".join(answer.output.split())


def test_a_port_that_is_taken_is_named_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = run("--model", "no such folder", "--port", str(port))
    assert code == 1
    assert said.startswith(f"127.0.0.1:{port} cannot be used")
    assert "choose another --port" in said


def test_a_port_that_is_taken_while_models_load_is_named_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(typer.Exit):
        run_server(FastAPI(), "127.0.0.1", taken.getsockname()[1], 1)
    assert "choose another --port" in capsys.readouterr().err


def test_without_a_champion_it_names_the_command_that_makes_one(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(registry)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code, output = run("--model", "models:/unheard-of@champion")
    assert code == 1
    assert "models:/unheard-of@champion is not in the registry" in output
    assert "tailorset promote" in output


def test_a_folder_without_a_classifier_is_named(tmp_path: Path) -> None:
    code, output = run("--model", str(tmp_path))
    assert code == 1
    assert str(tmp_path) in output
    assert "config.json" in output


def test_onnx_without_its_runtime_is_refused_with_the_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tailorset.inference.onnx_predictor.find_spec", lambda name: None if name == "onnxruntime" else name
    )
    code, output = run("--backend", "onnx", "--model", str(folder), "--port", "0")
    assert code == 1
    assert "backend 'onnx' needs onnxruntime" in output
    assert "choose backend torch" in output


def test_an_unknown_backend_is_named_with_the_choices() -> None:
    code, output = run("--backend", "tensorrt", "--model", "x")
    assert code == 2
    assert "tensorrt" in output
    assert "'torch', 'onnx'" in output


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_export_that_runs_ends_with_the_server(folder: Path, tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-m", "tailorset.cli", "serve", "--backend=onnx", f"--model={folder}", "--port=0"]
    work = tmp_path / "work"
    work.mkdir()
    server = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(work)})
    exports: list[psutil.Process] = []
    try:
        while not exports:
            assert server.poll() is None
            time.sleep(0.05)
            children = psutil.Process(server.pid).children()
            exports = [child for child in children if "tailorset.inference.onnx" in child.cmdline()]
        server.send_signal(how)
        assert server.wait(60) == (0 if how == signal.SIGTERM else -how)
        assert not psutil.wait_procs(exports, timeout=60)[1]
        assert how == signal.SIGKILL or not list(work.iterdir())
    finally:
        server.kill()
        server.wait()
        for export in exports:
            with suppress(psutil.NoSuchProcess):
                export.kill()


def in_flight(url: str) -> int:
    found = re.search(r"^tailorset_requests_in_flight (\d+)", httpx2.get(f"{url}/metrics").text, re.MULTILINE)
    assert found
    return int(found[1])


def test_on_sigterm_what_is_in_flight_is_answered(folder: Path) -> None:
    photo = BytesIO()
    Image.new("RGB", (4000, 4000)).save(photo, "PNG")  # slow to decode, so that some are in flight at the signal
    command = [
        sys.executable,
        "-m",
        "tailorset.cli",
        "serve",
        "--model",
        str(folder),
        "--port",
        "0",
        "--max-batch",
        "1",
    ]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    try:
        assert server.stderr is not None
        lines = iter(server.stderr.readline, "")
        url = next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))

        def ask(_: int) -> int:
            return httpx2.post(
                f"{url}/predict", content=photo.getvalue(), headers={"content-type": "image/png"}, timeout=60
            ).status_code

        with ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(ask, number) for number in range(16)]
            while sum(one.done() for one in asked) + in_flight(url) < len(asked):  # connections not yet accepted
                time.sleep(0.001)
            assert not all(future.done() for future in asked)
            server.send_signal(signal.SIGTERM)
            assert [future.result() for future in asked] == [200] * 16
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
