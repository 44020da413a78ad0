"""A Ray cluster of this machine's cores, for a benchmark or a test: its head is a child process and ends with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

SOURCES = Path(__file__).resolve().parents[1] / "src"
OBJECT_BYTES = 200_000_000


class Cluster(NamedTuple):
    """address: HOST:PORT of the head; head: the parent of all other processes."""

    address: str
    head: psutil.Process

    def workers(self) -> list[psutil.Process]:
        """The processes that draw."""
        found = []
        for child in self.head.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [child] if child.name().startswith("ray::Worker") else []
        return found


@contextlib.contextmanager
def local_cluster(num_cpus: int) -> Iterator[Cluster]:
    """A head on 127.0.0.1 with resources for this number of workers of one core."""
    import ray

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets must be short
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port=0"]
    command += ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}", f"--num-cpus={num_cpus}"]
    command += ["--node-ip-address=127.0.0.1", f"--object-store-memory={OBJECT_BYTES}"]
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield Cluster(_address(process), psutil.Process(process.pid))
    finally:
        ray.shutdown()
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(60)
        for survivor in psutil.wait_procs(family, timeout=5)[1]:
            kill(survivor)
        shutil.rmtree(folder, ignore_errors=True)


def kill(process: psutil.Process) -> None:
    """Kill a process, which may have ended since it was listed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    told = ""
    for line in process.stdout:
        told += line
        if "--address=" in line:
            return line.split("--address=")[1].strip().strip("'")
    raise RuntimeError(f"no head of a Ray cluster started:\n{told}")
