"""Several processes share a stage's work: what comes out is what one process makes, or within rounding of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tailorset.classifiers.parts.fusion import GlobalBranch
from tailorset.compute import processes

ROOT = Path(__file__).resolve().parents[2]


def launch(script: Path) -> None:
    """Run a script in its folder as `accelerate launch --num_processes 2` does."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    start = f"import sys; from tailorset.compute import processes; sys.argv = [{str(script)!r}]; processes.relaunch(2)"
    command = [sys.executable, "-c", start]
    answer = subprocess.run(command, cwd=script.parent, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]


@pytest.mark.parametrize(("num_samples", "num_processes"), [(8, 1), (8, 3), (2, 2), (1, 2), (3, 4)])
def test_shares_cover_every_sample_once(monkeypatch: pytest.MonkeyPatch, num_samples: int, num_processes: int) -> None:
    counted = torch.zeros(num_samples)
    monkeypatch.setattr(processes, "world_size", lambda: num_processes)
    for rank in range(num_processes):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        own, weight = processes.share(num_samples)
        assert len(counted[own]) >= 1
        counted[own] += weight
    torch.testing.assert_close(counted, torch.ones(num_samples))


def test_a_process_alone_waits_for_nobody_and_changes_nothing() -> None:
    tensor = torch.arange(3.0)
    processes.barrier()
    processes.all_reduce([tensor, None])
    processes.broadcast([tensor])
    assert (processes.world_size(), processes.rank(), processes.all_reduce_number(2.5, "cpu")) == (1, 0, 2.5)
    assert tensor.tolist() == [0, 1, 2]


BRANCH = """
import torch
from safetensors.torch import load_file, save_file
from tailorset.compute import processes
from tests.compute.test_processes import pull
processes.init_process_group(torch.device("cpu"))
data = load_file("data.safetensors")
own = processes.share(len(data["x"])).own
pulled = pull(data["x"][own], data["weights"][own])
processes.all_reduce(value for name, value in pulled.items() if name.endswith(".grad"))
if processes.rank() == 0:
    save_file(pulled, "out.safetensors")
processes.destroy_process_group()
"""


def pull(x: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """A fusion branch in training: its output, the gradients of a loss on it, and its state after that."""
    torch.manual_seed(0)
    branch = GlobalBranch(x.shape[-1]).double()  # in float32 the order of a sum, and so the threads, can be seen
    torch.nn.init.normal_(branch.norm.weight)  # not near zero, as at the start: all gradients can be seen
    output = branch(x)
    (output.sin() * weights).sum().backward()
    gradients = {f"{name}.grad": parameter.grad for name, parameter in branch.named_parameters()}
    return {"output": output.detach(), **gradients, **branch.state_dict()}


def test_a_fusion_branch_is_normalised_over_the_images_of_all_processes(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    data = {name: torch.randn(6, 4, 8, generator=generator, dtype=torch.float64) * 3 + 2 for name in ("x", "weights")}
    save_file(data, tmp_path / "data.safetensors")
    (tmp_path / "branch.py").write_text(BRANCH)
    launch(tmp_path / "branch.py")
    ours, alone = load_file(tmp_path / "out.safetensors"), pull(data["x"], data["weights"])
    assert ours.keys() == alone.keys()
    for name, value in (alone | {"output": alone["output"][:3]}).items():
        torch.testing.assert_close(ours[name], value, msg=lambda text, name=name: f"{name}: {text}")
