"""Running out of memory costs a retry: the same results in smaller batches, or one line that says what to change."""

from __future__ import annotations

import logging
import weakref

import pytest
import torch

from tailorset.compute.memory import ShrinkingBatches, enforce_budget, explained, is_out_of_memory


class Memory:
    """Doubles numbers, as long as no more than `room` come at once."""

    def __init__(self, room: int) -> None:
        self.room, self.tried = room, []

    def double(self, numbers: torch.Tensor) -> torch.Tensor:
        self.tried.append(len(numbers))
        if len(numbers) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return 2 * numbers


def test_a_batch_that_does_not_fit_is_run_in_halves_and_the_size_is_remembered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory, batches, numbers = Memory(room=3), ShrinkingBatches(10, "doubling", ""), torch.arange(13)
    assert torch.equal(batches.concatenated(memory.double, numbers), 2 * numbers)
    assert memory.tried == [10, 5, 2, 2, 2, 2, 2, 2, 1]
    memory.tried.clear()
    batches.concatenated(memory.double, numbers)
    assert set(memory.tried) == {2, 1}
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        "doubling: out of memory with 10 at once, now 5",
        "doubling: out of memory with 5 at once, now 2",
    ]


def test_where_one_does_not_fit_the_fallback_comes_first_and_the_error_names_the_remedies() -> None:
    memory, fallbacks = Memory(room=0), []
    batches = ShrinkingBatches(2, "doubling", "double less", fallback=lambda: fallbacks.append(len(memory.tried)))
    with pytest.raises(MemoryError, match=r"doubling.*Tried to allocate.*double less.*memory_budget_gb"):
        batches.concatenated(memory.double, torch.arange(4))
    assert memory.tried == [2, 1, 1]
    assert fallbacks == [2]


def test_the_cpus_own_error_is_recognised_and_no_other() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    for sign in ("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "out of memory"):
        assert is_out_of_memory(RuntimeError(f"CUDA error: {sign}"))
    assert not is_out_of_memory(RuntimeError("out of memory is what this error only talks of"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: not enough memory"))


def test_other_errors_pass_at_once() -> None:
    calls = iter(range(100))

    def broken(part: slice) -> None:
        next(calls)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        list(ShrinkingBatches(8, "multiplying", "").over(8, broken))
    assert next(calls) == 1
    with pytest.raises(RuntimeError, match="shapes"), explained("multiplying", ""):
        broken(slice(0, 1))


def test_an_error_of_the_consumer_is_not_taken_for_one_of_the_batch() -> None:
    batches = ShrinkingBatches(2, "doubling", "")
    results = batches.over(4, lambda part: part)
    next(results)
    with pytest.raises(torch.OutOfMemoryError):
        results.throw(torch.OutOfMemoryError("CUDA out of memory"))
    assert batches.size == 2


def test_what_filled_memory_is_free_before_the_retry() -> None:
    """The error's traceback holds the tensors of the failed batch."""
    held: list[weakref.ref[torch.Tensor]] = []

    def fill(part: slice) -> int:
        alive = [reference for reference in held if reference() is not None]
        tensor = torch.zeros(10)
        held.append(weakref.ref(tensor))
        if part.stop - part.start > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return len(alive)

    assert [alive for _, alive in ShrinkingBatches(4, "filling", "").over(2, fill)] == [0, 0]


def test_memory_that_runs_out_elsewhere_is_explained() -> None:
    message = r"loading: out of memory \(OutOfMemoryError: CUDA out of memory\); take a smaller model"
    with pytest.raises(MemoryError, match=message), explained("loading", "take a smaller model"):
        raise torch.OutOfMemoryError("CUDA out of memory\nand much more text")


def test_a_budget_on_a_cpu_is_said_to_have_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    enforce_budget(None, torch.device("cpu"))
    assert not caplog.records
    enforce_budget(4, torch.device("cpu"))
    assert "memory_budget_gb is 4, but memory can be limited on a GPU only" in caplog.text


def test_a_budget_limits_what_a_gpu_may_give(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    limits: list[tuple[float, int | None]] = []
    card = type("Properties", (), {"total_memory": 16 * 10**9})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *limit: limits.append(limit))
    device = torch.device("cuda", 0)
    enforce_budget(8, device)
    enforce_budget(4, torch.device("cuda"))  # as params.yaml names it: the current one
    enforce_budget(48, device)
    assert limits == [(0.5, 0), (0.25, None), (1, 0)]
    assert "8.0 of the device's 16.0 GB" in caplog.text


def test_memory_that_runs_out_while_compiling_is_recognised() -> None:
    error = RuntimeError("backend='inductor' raised")
    assert not is_out_of_memory(error)
    error.inner_exception = torch.OutOfMemoryError("no memory")  # type: ignore[attr-defined]
    assert is_out_of_memory(error)


@pytest.mark.gpu
def test_a_batch_shrinks_to_the_budget_of_a_real_gpu() -> None:
    device = torch.device("cuda")
    enforce_budget(1, device)
    try:
        batches = ShrinkingBatches(64, "filling", "")
        sizes = [result for _, result in batches.over(64, lambda part: _fill(part.stop - part.start, device))]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert sum(sizes) == 64
    assert 1 <= batches.size <= 8


def _fill(num: int, device: torch.device) -> int:
    """100 MB a sample."""
    return len(torch.zeros(num, 25 * 10**6, device=device))
