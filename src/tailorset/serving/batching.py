"""Micro-batching: jobs of requests at about the same time are computed together, by one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Full(Exception):
    """The queue is full."""


class Batcher(Generic[Job, Result]):
    """Call `work(jobs) -> results`, in order, on at most `max_batch` jobs at a time.

    A batch that is not full waits `max_wait_s` for more jobs. At most `max_waiting` jobs wait for their turn.
    """

    def __init__(
        self, work: Callable[[list[Job]], Sequence[Result]], max_batch: int, max_wait_s: float, max_waiting: int
    ) -> None:
        self._work, self.max_batch, self.max_wait_s = work, max_batch, max_wait_s
        self._waiting: asyncio.Queue[tuple[Job, asyncio.Future[Result]]] = asyncio.Queue(max_waiting)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="classifier")

    @property
    def num_waiting(self) -> int:
        return self._waiting.qsize()

    async def submit(self, jobs: Sequence[Job]) -> list[Result]:
        """Return the results of these jobs; all of them are accepted, or none.

        Raises:
            Full: they do not fit into the queue.
            Exception: whatever `work` raised on their batch.
        """
        if self._waiting.qsize() + len(jobs) > self._waiting.maxsize:
            raise Full
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Result]] = [loop.create_future() for _ in jobs]
        for pair in zip(jobs, futures, strict=True):
            self._waiting.put_nowait(pair)
        return await asyncio.gather(*futures)

    async def run(self) -> None:
        """Process the queue until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            if len(batch) + self.num_waiting < self.max_batch:
                await asyncio.sleep(self.max_wait_s)
            while self.num_waiting and len(batch) < self.max_batch:
                batch.append(self._waiting.get_nowait())
            if pending := [pair for pair in batch if not pair[1].done()]:  # done: its request is gone
                await self._answer(pending)

    async def _answer(self, batch: list[tuple[Job, asyncio.Future[Result]]]) -> None:
        jobs, futures = [job for job, _ in batch], [future for _, future in batch]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._work, jobs)
        except Exception as error:  # noqa: BLE001 - any error is passed to the waiting requests
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, result in zip(futures, results, strict=True):
            if not future.done():
                future.set_result(result)
