"""Micro-batching: together, in order, bounded, and nobody pays for another's failure for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tailorset.serving.batching import Batcher, Full


def run_with(batcher: Batcher[int, int], use: Callable[[], Awaitable[None]]) -> None:
    async def both() -> None:
        task = asyncio.create_task(batcher.run())
        await use()
        task.cancel()

    asyncio.run(both())


def test_what_comes_together_is_computed_together_and_everyone_gets_their_own() -> None:
    sizes: list[int] = []

    def work(jobs: list[int]) -> list[int]:
        sizes.append(len(jobs))
        return [10 * job for job in jobs]

    batcher = Batcher(work, max_batch=4, max_wait_s=0.05, max_waiting=20)

    async def use() -> None:
        answers = await asyncio.gather(*(batcher.submit([number, -number]) for number in range(5)))
        assert answers == [[10 * number, -10 * number] for number in range(5)]

    run_with(batcher, use)
    assert sizes == [4, 4, 2]


def test_a_batch_that_is_full_does_not_wait() -> None:
    batcher: Batcher[int, int] = Batcher(lambda jobs: jobs, max_batch=2, max_wait_s=60, max_waiting=20)

    async def use() -> None:
        assert await asyncio.wait_for(batcher.submit([1, 2]), 5) == [1, 2]

    run_with(batcher, use)


def test_more_than_may_wait_is_refused_as_a_whole() -> None:
    batcher: Batcher[int, int] = Batcher(lambda jobs: jobs, max_batch=2, max_wait_s=0, max_waiting=3)

    async def use() -> None:
        first = asyncio.create_task(batcher.submit([1, 2]))
        await asyncio.sleep(0)
        with pytest.raises(Full):
            await batcher.submit([3, 4])
        assert await first == [1, 2]
        assert await batcher.submit([3, 4]) == [3, 4]

    run_with(batcher, use)


def test_a_failure_reaches_those_of_the_batch_and_the_next_batch_is_answered() -> None:
    def work(jobs: list[int]) -> list[int]:
        if 0 in jobs:
            raise ZeroDivisionError
        return jobs

    batcher = Batcher(work, max_batch=2, max_wait_s=0.02, max_waiting=9)

    async def use() -> None:
        answers = await asyncio.gather(
            batcher.submit([0]), batcher.submit([1]), batcher.submit([2]), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [ZeroDivisionError, ZeroDivisionError, list]

    run_with(batcher, use)


def test_what_nobody_waits_for_any_more_is_not_computed() -> None:
    seen: list[int] = []

    def work(jobs: list[int]) -> list[int]:
        seen.extend(jobs)
        return jobs

    batcher = Batcher(work, max_batch=9, max_wait_s=0.05, max_waiting=9)

    async def use() -> None:
        gone = asyncio.create_task(batcher.submit([1]))
        await asyncio.sleep(0)
        gone.cancel()
        assert await batcher.submit([2]) == [2]

    run_with(batcher, use)
    assert seen == [2]
