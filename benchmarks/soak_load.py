"""Clients: as fast as answers come, or at a fixed rate; every answer is timed and checked."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import aiohttp
import numpy as np
from PIL import Image

from tailorset.images.codec import encode_png

TIMEOUT_S = 30
TOLERANCE = 1e-4
HEADERS = {"Content-Type": "image/png"}


class Reply(NamedTuple):
    """status: 0 if no answer came. `text` is the body."""

    status: int
    started: float
    seconds: float
    retry_after: str | None
    text: bytes
    photo: int

    @property
    def ended(self) -> float:
        return self.started + self.seconds

    def refused_rightly(self) -> bool:
        return self.status in (429, 503) and (self.retry_after or "").isdecimal()

    def told(self) -> str:
        return f"{self.status}: {self.text.decode(errors='replace')[:200]}"


class Expected:
    """Scores by version, photo and label, to compare answers with."""

    def __init__(self, scores: dict[str, list[dict[str, float]]]) -> None:
        self.scores = scores
        self._versions: list[tuple[float, str]] = []  # time and version of an answer

    def faults(self, replies: Sequence[Reply]) -> list[str]:
        """Answers that differ from their version's scores of their photo."""
        return [fault for reply in replies if reply.status == 200 and (fault := self._fault(reply))]

    def order(self) -> list[str]:
        """The versions that answered, in order."""
        versions = [version for _, version in sorted(self._versions)]
        return [version for version, _ in groupby(versions)]

    def _fault(self, reply: Reply) -> str:
        answer = json.loads(reply.text)
        said = {label["label"]: label["score"] for label in answer["labels"]}
        right = self.scores[answer["version"]][reply.photo]
        self._versions.append((reply.ended, answer["version"]))
        same = said.keys() == right.keys() and all(abs(said[name] - right[name]) <= TOLERANCE for name in right)
        return "" if same else reply.told()


@dataclass
class Interruption:
    """Something to do after some seconds of load; `at`: when it was done."""

    after_s: float
    what: Callable[[], None]
    at: float = 0.0

    async def happen(self) -> None:
        await asyncio.sleep(self.after_s)
        self.at = time.monotonic()
        self.what()


def some_photos(count: int) -> list[bytes]:
    """Distinct pictures as PNG files."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in range(count)]
    return [encode_png(np.asarray(Image.fromarray(small).resize((96, 96)))) for small in pixels]


async def closed_loop(url: str, photos: Sequence[bytes], clients: int, until: Callable[[], bool]) -> list[Reply]:
    """Each client asks again as soon as it has its answer, as long as `until` does not hold."""
    replies: list[Reply] = []

    async def client(session: aiohttp.ClientSession, first: int) -> None:
        for number in itertools.count(first, clients):
            if until():
                return
            replies.append(await ask(session, url, photos, number % len(photos)))

    async with _session(clients) as session:
        await asyncio.gather(*(client(session, number) for number in range(clients)))
    return replies


async def open_loop(
    url: str,
    photos: Sequence[bytes],
    clients: int,
    rate: float,
    seconds: float,
    interruption: Interruption | None = None,
    keep: bool = True,
) -> list[Reply]:
    """`rate` requests a second in all, from that many clients; keep: whether they keep their connections."""
    replies: list[Reply] = []
    period, start, random = clients / rate, time.monotonic(), np.random.default_rng(0)

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        due = start + period * number / clients
        while due < start + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            replies.append(await ask(session, url, photos, len(replies) % len(photos)))
            due = max(due + period * random.uniform(0.5, 1.5), time.monotonic())

    async with _session(clients, keep) as session:
        others = [interruption.happen()] if interruption else []
        await asyncio.gather(*others, *(client(session, number) for number in range(clients)))
    return replies


async def ask(session: aiohttp.ClientSession, url: str, photos: Sequence[bytes], photo: int) -> Reply:
    start, clock = time.monotonic(), time.perf_counter()
    try:
        async with session.post(f"{url}/predict", data=photos[photo], headers=HEADERS) as response:
            text = await response.read()
            retry = response.headers.get("Retry-After")
            return Reply(response.status, start, time.perf_counter() - clock, retry, text, photo)
    except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
        return Reply(0, start, time.perf_counter() - clock, None, repr(error).encode(), photo)


def statuses(replies: Sequence[Reply]) -> dict[str, int]:
    """Count of each status, for a report."""
    return {str(status): count for status, count in sorted(Counter(reply.status for reply in replies).items())}


def p99_ms(replies: Sequence[Reply]) -> float:
    """99th percentile of the answered requests."""
    return 1000 * float(np.percentile([reply.seconds for reply in replies if reply.status == 200], 99))


def throughput(replies: Sequence[Reply]) -> float:
    """Answers per second, without the first and the last tenth of the time."""
    ends = np.array(sorted(reply.ended for reply in replies if reply.status == 200))
    low, high = np.quantile(ends, [0.1, 0.9])
    return float(((ends >= low) & (ends <= high)).sum() / (high - low))


def after(seconds: float) -> Callable[[], bool]:
    stop = time.monotonic() + seconds
    return lambda: time.monotonic() >= stop


def _session(clients: int, keep: bool = True) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=clients, force_close=not keep),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
    )
