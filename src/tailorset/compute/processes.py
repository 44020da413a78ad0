"""Several processes at one stage, as `accelerate launch` starts them; a process alone is number 0 of 1.

All of them read and write the same folders. What one must not do beside the others, process 0 does.
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
PATIENCE = timedelta(hours=6)  # the longest that one may keep the others waiting, e.g. with its shard


class Share(NamedTuple):
    """Which samples of a batch are this process's own, and how much of its results count."""

    own: slice
    weight: float


def relaunch(num_processes: int) -> NoReturn:
    """Go on as `accelerate launch --num_processes N` of this very command."""
    options = ["--num_processes", str(num_processes), "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--multi_gpu"]  # this also starts N processes where there is no GPU
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *sys.argv]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def launched() -> int:
    """How many processes a launcher has started here, 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: torch.device) -> None:
    """Meet the other processes, if there are any: by NCCL on GPUs, one each, by gloo on a CPU."""
    if launched() > 1:
        from accelerate import PartialState

        if sys.platform == "linux":  # without its launcher a process would go on beside the next run
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        PartialState(cpu=device.type == "cpu", timeout=PATIENCE)


def leave() -> None:
    """Leave the others."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def count() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else int(os.environ.get("RANK", "0"))


def wait() -> None:
    """Until every process has come this far."""
    if count() > 1:
        distributed.barrier()


def share(num_samples: int) -> Share:
    """Consecutive parts, as equal as may be; what is too little to be split is done by all and counts as one."""
    if num_samples < count():
        return Share(slice(0, num_samples), 1 / count())
    start, stop = (num_samples * part // count() for part in (rank(), rank() + 1))
    return Share(slice(start, stop), 1.0)


def add_up(tensors: Iterable[Tensor | None]) -> None:
    """Replace each tensor by its sum over the processes; None has nothing to add in any of them."""
    if count() > 1:
        for tensor in tensors:
            if tensor is not None:
                distributed.all_reduce(tensor)


def total(value: float, device: torch.device | str) -> float:
    """A number's sum over the processes."""
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    add_up([tensor])
    return float(tensor)


def alike(tensors: Sequence[Tensor]) -> None:
    """Give every process the tensors of process 0."""
    if count() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor.data, src=0)
