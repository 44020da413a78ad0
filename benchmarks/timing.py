"""Clocks and roofs: medians of alternating turns, time inside one module, and the machine's best rates."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from statistics import median
from typing import Any, NamedTuple, Self

import torch
from torch import nn
from torch.nn import functional as F

from tailorset.compute.flops import flop_counter

FOREVER = 10**6  # updates of a tuner: as many as requested
ROOF_MATMUL = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}


def interleaved(sides: Mapping[str, Callable[[], object]], device: torch.device, repetitions: int) -> dict[str, float]:
    """Median seconds of each side over turns that alternate between them, so that a disturbance affects all alike."""
    for work in sides.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, work in sides.items():
            seconds[name].append(timed_call(work, device))
    return {name: median(values) for name, values in seconds.items()}


@dataclass(frozen=True)
class SpeedComparison:
    """Median seconds per sample of two ways to do the same; goal: speed-up that ours should reach.

    note: what was compared, and anything that differs in the outcome. equal: the outcomes are alike; otherwise a ratio
    does not reach its goal.
    """

    name: str
    ours_s: float
    plain_s: float
    note: str
    goal: float | None = None
    equal: bool = True

    @property
    def ratio(self) -> float:
        return self.plain_s / self.ours_s


class Side(NamedTuple):
    """One way: a turn of work, and how many samples a turn handles."""

    work: Callable[[], object]
    num_samples: int = 1


def compared(ours: Side, plain: Side, device: torch.device, repetitions: int) -> dict[str, float]:
    """Median seconds per sample, in alternation, under the names of SpeedComparison."""
    return seconds_per_sample({"ours_s": ours, "plain_s": plain}, device, repetitions)


def seconds_per_sample(sides: Mapping[str, Side], device: torch.device, repetitions: int) -> dict[str, float]:
    """Medians over turns that alternate between the sides."""
    medians = interleaved({name: side.work for name, side in sides.items()}, device, repetitions)
    return {name: medians[name] / side.num_samples for name, side in sides.items()}


def timed_call(work: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class TimedModule:
    """Add up the seconds spent in a module's forward passes, and on request the FLOPs; counting them takes time."""

    def __init__(self, module: nn.Module, device: torch.device, count_flops: bool = False) -> None:
        self.module, self.device, self.count_flops = module, device, count_flops
        self.seconds = self.flops = 0.0
        self._counter = flop_counter()

    def __enter__(self) -> Self:
        before, after = self.module.register_forward_pre_hook, self.module.register_forward_hook
        self._handles = [before(self._before), after(self._after)]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, *_: object) -> None:
        synchronise(self.device)
        if self.count_flops:
            self._counter.__enter__()  # starts from zero
        self._start = time.perf_counter()

    def _after(self, *_: object) -> None:
        synchronise(self.device)
        self.seconds += time.perf_counter() - self._start
        if self.count_flops:
            self._counter.__exit__(None, None, None)
            self.flops += self._counter.get_total_flops()


@torch.no_grad()
def matmul_roofs(dtype: torch.dtype, device: torch.device, repetitions: int) -> dict[str, float]:
    """FLOP/s of square matmuls."""
    rates = {}
    for n in ROOF_MATMUL[device.type]:
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        rates[f"matmul {n}"] = _rate(partial(torch.matmul, a, b), 2 * n**3, device, repetitions)
    return rates


@torch.no_grad()
def measured_roofs(unet: Any, batch: int, device: torch.device, repetitions: int) -> dict[str, float]:
    """FLOP/s of square matmuls and of 3 x 3 convolutions as wide and as many as the UNet's own."""
    dtype, rates = unet.dtype, matmul_roofs(unet.dtype, device, repetitions)
    side = unet.config.sample_size
    for channels in dict.fromkeys(unet.config.block_out_channels):
        images = torch.randn(batch, channels, side, side, device=device, dtype=dtype)
        kernel = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
        flops = 2 * batch * side**2 * channels**2 * 9
        work = partial(F.conv2d, images, kernel, padding=1)
        rates[f"conv 3x3, {channels} channels, {side} x {side}"] = _rate(work, flops, device, repetitions)
        side = max(1, side // 2)
    return rates


def _rate(work: Callable[[], object], flops: float, device: torch.device, repetitions: int) -> float:
    """The best of several turns: a roof is the machine's best rate, not its usual one."""
    work()
    return flops / min(timed_call(work, device) for _ in range(3 * repetitions))


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Most bytes of tensors that `work` held at once, in addition to those before."""
    gc.collect()  # what was measured before and left in cycles would count as given back if it were freed meanwhile
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held, default=0)
