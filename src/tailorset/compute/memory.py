"""Batches that shrink when memory runs out: a setting that is too large costs a retry, not the run."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from tailorset.messages import GB, first_line
from tailorset.progress import Bar

# In errors of the CPU's allocator, of CUDA itself, and of cuBLAS and cuDNN, for which torch has no type of their own.
OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "ALLOC_FAILED")
BUDGET = ", or raise memory_budget_gb if it is set"  # the end of every remedy
log = logging.getLogger(__name__)
T = TypeVar("T")


class ShrinkingBatches:
    """Number of samples that run at once: halved whenever memory runs out, and kept from then on.

    what, remedy: for messages: the work, and what to change if not even one sample fits. fallback: called once before
    that, to save memory in another way.
    """

    def __init__(self, size: int, what: str, remedy: str, fallback: Callable[[], object] | None = None) -> None:
        self.size, self.what, self.remedy, self.fallback = size, what, remedy, fallback

    def over(self, num_samples: int, run: Callable[[slice], T]) -> Iterator[tuple[slice, T]]:
        """Yield (part, run(part)) for consecutive parts of the samples.

        `run` must leave nothing behind when it fails: the first half of its part is then run again.

        Raises:
            MemoryError: a single sample does not fit.
        """
        start = 0
        while start < num_samples:
            part = slice(start, min(start + self.size, num_samples))
            try:
                result = run(part)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)
            else:
                yield part, result
                start = part.stop
                continue
            self._shrink(part.stop - part.start, reason)  # not before: the error's traceback holds what filled memory

    def concatenated(self, run: Callable[[Any], Tensor], samples: Tensor | Sequence[Any]) -> Tensor:
        """`run` over all samples, a tensor (N, ...) or N of any kind, its results joined on the CPU."""
        results = []
        with Bar(total=len(samples), desc=self.what, unit="image", leave=False) as bar:
            for part, result in self.over(len(samples), lambda part: run(samples[part]).cpu()):
                results.append(result)
                bar.update(part.stop - part.start)
        return torch.cat(results)

    def _shrink(self, tried: int, reason: str) -> None:
        if tried > 1:
            self.size = tried // 2
            log.warning("%s: out of memory with %d at once, now %d (%s)", self.what, tried, self.size, reason)
        elif self.fallback:
            self.fallback()
            self.fallback = None
            log.warning("%s: out of memory with one at a time, now trying the slowest way (%s)", self.what, reason)
        else:
            raise MemoryError(f"{self.what}: not even one at a time fits ({reason}); {self.remedy}{BUDGET}")
        free_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Check that a device, or the CPU, ran out of memory; torch.compile wraps errors while it compiles."""
    error = getattr(error, "inner_exception", error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY)
    )


@contextmanager
def explained(what: str, remedy: str) -> Iterator[None]:
    """Name the setting to change if memory runs out where no smaller batch is possible or allowed.

    Raises:
        MemoryError: memory ran out.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(f"{what}: out of memory ({first_line(error)}); {remedy}{BUDGET}") from error


def free_memory() -> None:
    """Return memory that no tensor uses."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def enforce_budget(budget_gb: float | None, device: torch.device) -> None:
    """Let this process allocate no more than the budget, in GB of 10^9 bytes; None = all there is.

    What CUDA itself needs for a context comes on top.
    """
    if budget_gb is None:
        return
    if device.type != "cuda":
        log.warning("memory_budget_gb is %g, but memory can be limited on a GPU only: it has no effect here", budget_gb)
        return
    total = torch.cuda.get_device_properties(device).total_memory
    fraction = min(1.0, budget_gb * GB / total)
    torch.cuda.set_per_process_memory_fraction(fraction, device.index)  # torch refuses a device without
    log.info("memory_budget_gb: %.1f of the device's %.1f GB", fraction * total / GB, total / GB)
