"""Several processes that share one stage, as `accelerate launch` starts them; a process alone has rank 0 of 1.

All of them read and write the same folders. Work that must happen once is done by process 0.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, distributed

PR_SET_PDEATHSIG = 1  # of Linux's prctl: end when the parent does
PATIENCE = timedelta(hours=6)  # longest time that one process may keep the rest waiting, e.g. with its shard


class Share(NamedTuple):
    """A process's own samples of a batch, and the weight of its results."""

    own: slice
    weight: float


def relaunch(num_processes: int) -> NoReturn:
    """Replace this process by `accelerate launch --num_processes N` of the same command."""
    options = ["--num_processes", str(num_processes), "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--multi_gpu"]  # this also starts N processes where there is no GPU
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *sys.argv]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def launched() -> int:
    """Number of processes that a launcher has started here, 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def init_process_group(device: torch.device) -> None:
    """Connect to the other processes, if there are any: by NCCL on GPUs, one each, by gloo on a CPU."""
    if launched() > 1:
        from accelerate import PartialState

        if sys.platform == "linux":  # without its launcher a process would go on next to the next run
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        PartialState(cpu=device.type == "cpu", timeout=PATIENCE)


def destroy_process_group() -> None:
    """Disconnect from the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def world_size() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else int(os.environ.get("RANK", "0"))


def barrier() -> None:
    """Wait until every process has come this far."""
    if world_size() > 1:
        distributed.barrier()


def share(num_samples: int) -> Share:
    """Split samples into consecutive parts of nearly equal size; too few to split are done by all and count as one."""
    if num_samples < world_size():
        return Share(slice(0, num_samples), 1 / world_size())
    start, stop = (num_samples * part // world_size() for part in (rank(), rank() + 1))
    return Share(slice(start, stop), 1.0)


def all_reduce(tensors: Iterable[Tensor | None]) -> None:
    """Replace each tensor by its sum over the processes; None stands for nothing in all of them."""
    if world_size() > 1:
        for tensor in tensors:
            if tensor is not None:
                distributed.all_reduce(tensor)


def all_reduce_number(value: float, device: torch.device | str) -> float:
    """Sum of a number over the processes."""
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    all_reduce([tensor])
    return float(tensor)


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Give every process the tensors of process 0."""
    if world_size() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor.data, src=0)
