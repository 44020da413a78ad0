"""Several processes share a stage's work: what comes out is what one process makes, or within rounding of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tailorset import processes

ROOT = Path(__file__).resolve().parents[1]


def launch(script: Path, folder: Path, *arguments: str, num_processes: int = 2) -> None:
    """Run a script as `accelerate launch` does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from tailorset import processes; import sys; "
               f"sys.argv = {[str(script), *arguments]!r}; processes.relaunch({num_processes})"]  # fmt: skip
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]


@pytest.mark.parametrize(("num_samples", "num_processes"), [(8, 1), (8, 3), (2, 2), (1, 2), (3, 4)])
def test_shares_cover_every_sample_once(monkeypatch: pytest.MonkeyPatch, num_samples: int, num_processes: int) -> None:
    counted = torch.zeros(num_samples)
    monkeypatch.setattr(processes, "count", lambda: num_processes)
    for rank in range(num_processes):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        own, weight = processes.share(num_samples)
        assert len(counted[own]) >= 1
        counted[own] += weight
    torch.testing.assert_close(counted, torch.ones(num_samples))


def test_a_process_alone_waits_for_nobody_and_changes_nothing() -> None:
    tensor = torch.arange(3.0)
    processes.wait()
    processes.add_up([tensor, None])
    processes.alike([tensor])
    assert (processes.count(), processes.rank(), processes.total(2.5, "cpu")) == (1, 0, 2.5)
    assert tensor.tolist() == [0, 1, 2]


NORM = """
import torch
from safetensors.torch import load_file, save_file
from tailorset import processes
from tailorset.batch_norm import BatchNorm
processes.join(torch.device("cpu"))
data = load_file("data.safetensors")
norm = BatchNorm(5)
own = processes.share(len(data["x"])).own
x = data["x"][own].clone().requires_grad_()
(norm(x).sin() * data["weights"][own]).sum().backward()
processes.add_up([norm.weight.grad, norm.bias.grad])
if processes.rank() == 0:
    gradients = {"x.grad": x.grad, "weight.grad": norm.weight.grad, "bias.grad": norm.bias.grad}
    save_file(gradients | norm.state_dict(), "out.safetensors")
processes.part()
"""


def test_normalisation_over_processes_equals_one_over_all_samples(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(0)
    data = {name: torch.randn(12, 5, generator=generator) * 3 + 2 for name in ("x", "weights")}
    save_file(data, tmp_path / "data.safetensors")
    (tmp_path / "norm.py").write_text(NORM)
    launch(tmp_path / "norm.py", tmp_path)
    ours = load_file(tmp_path / "out.safetensors")

    norm, x = torch.nn.BatchNorm1d(5), data["x"].clone().requires_grad_()
    (norm(x).sin() * data["weights"]).sum().backward()
    gradients = {"x.grad": x.grad[:6], "weight.grad": norm.weight.grad, "bias.grad": norm.bias.grad}
    for name, value in (gradients | norm.state_dict()).items():
        torch.testing.assert_close(ours[name], value, msg=lambda text, name=name: f"{name}: {text}")
