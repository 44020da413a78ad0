"""Stress test of `tailorset serve`: `make soak` compares figures with goals; exit status 1 if one is missed.

Everything happens on this machine: a registry in a temporary folder with two versions of models/classifier (or of a
tiny one), `tailorset serve` as a process, and clients that connect to 127.0.0.1.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from soak_decoder import decode_mutated
from soak_load import (
    Expected,
    Interruption,
    after,
    closed_loop,
    open_loop,
    p99_ms,
    some_photos,
    statuses,
    throughput,
)
from soak_mutated import SCHEMA_SHARE, Findings, send_generated, send_mutated
from soak_server import Server, build_project, expected_scores, point_to

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.messages import MIB

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = 64
WARM_REQUESTS = 1000  # until memory is constant
IN_FLIGHT_S = 0.1  # a request sent this long ago has reached the server


@dataclass(frozen=True)
class Figure:
    """One measured value, its goal, and notes that help to understand it."""

    name: str
    value: float
    goal: str
    reached: bool
    note: str = ""

    def line(self) -> str:
        mark = "ok    " if self.reached else "MISSED"
        return f"{mark} {self.name:<46} {self.value:>10.4g}   goal {self.goal:<8} {self.note}"


def at_most(name: str, value: float, limit: float, note: str = "") -> Figure:
    return Figure(name, value, f"<= {limit:g}", value <= limit, note)


def at_least(name: str, value: float, limit: float, note: str = "") -> Figure:
    return Figure(name, value, f">= {limit:g}", value >= limit, note)


def none_of(name: str, faults: Sequence[str], note: str = "") -> Figure:
    """Count of something that must not occur; the first one is shown."""
    return Figure(name, len(faults), "0", not faults, " ".join([note, *faults[:1]]))


@dataclass(frozen=True)
class SoakSize:
    """Duration and amounts."""

    requests: int
    files: int
    clients: int
    seconds: float
    seed: int


class Soak:
    """The parts, each yielding its figures; they share a project and the correct answers."""

    def __init__(self, root: Path, models: Path, size: SoakSize) -> None:
        self.root, self.size = root, size
        build_project(root, models)
        self.photos = some_photos(PHOTOS)
        self.scores = expected_scores(root, self.photos)
        gc.collect()
        gc.freeze()  # a pause of the clients would be counted as the server's

    def mutated(self) -> Iterator[Figure]:
        """Invalid requests."""
        size, findings = self.size, Findings()
        with Server(self.root) as server:
            warm = range(min(WARM_REQUESTS, size.requests))
            send_mutated(server.url, size.seed, warm, Findings())
            before = server.resident_bytes()
            generated = send_generated(server.url, size.seed, round(SCHEMA_SHARE * size.requests), findings)
            send_mutated(server.url, size.seed, range(len(warm), len(warm) + size.requests - generated), findings)
            grown = 100 * (server.resident_bytes() / before - 1)
        note = f"statuses {dict(sorted(findings.statuses.items()))}, {generated} by schemathesis"
        yield at_least("mutated requests", sum(findings.statuses.values()), size.requests, note)
        yield none_of("  answered otherwise than they should", findings.faults)
        yield at_most("  slowest answer, s", findings.slowest_s, 5)
        yield at_most("  resident memory, % more", grown, 5, f"from {before / MIB:.0f} MiB")

    def decoder(self) -> Iterator[Figure]:
        """Files with mutated headers, without a server: what Pillow can show is decoded."""
        found = decode_mutated(self.size.seed, range(self.size.files))
        yield at_least("mutated headers", found.num_files, self.size.files, f"Pillow can show {found.num_shown:,}")
        yield none_of("  decoded or refused otherwise than they should", found.faults)

    def throughput(self) -> Iterator[Figure]:
        """Micro-batching against one by one, in alternation."""
        rates: dict[str, list[float]] = {"batched": [], "alone": []}
        with Server(self.root) as batched, Server(self.root, "--max-batch", "1") as alone:
            for _ in range(3):
                for name, server in (("batched", batched), ("alone", alone)):
                    turn = after(self.size.seconds / 6)
                    rates[name].append(throughput(asyncio.run(closed_loop(server.url, self.photos, 32, turn))))
        together, one = median(rates["batched"]), median(rates["alone"])
        note = f"{together:.0f} / s in batches, {one:.0f} / s one by one: medians of 3 turns"
        yield at_least("throughput of 32 clients, batched / alone, x", together / one, 2, note)

    def overload(self) -> Iterator[Figure]:
        """Half the capacity, then twice, then SIGTERM under load."""
        size = self.size
        with Server(self.root) as server:
            busy = asyncio.run(closed_loop(server.url, self.photos, 32, after(size.seconds / 4)))
            capacity = throughput(busy)
            half, twice = (
                asyncio.run(open_loop(server.url, self.photos, size.clients, factor * capacity, size.seconds))
                for factor in (0.5, 2)
            )
            stop = Interruption(size.seconds / 10, server.terminate)
            last = asyncio.run(
                open_loop(server.url, self.photos, size.clients, capacity, size.seconds / 5, stop, keep=False)
            )
            exit_status = server.process.wait(60)
        wrong = [reply.told() for reply in (*half, *twice) if reply.status != 200 and not reply.refused_rightly()]
        counted = f"capacity {capacity:.0f} / s; at half {statuses(half)}, at twice {statuses(twice)}"
        yield none_of(f"{size.clients} clients: neither 200 nor come again", wrong, counted)
        yield none_of("  wrong answers", Expected(self.scores).faults([*half, *twice]))
        slow, fair = p99_ms(twice), p99_ms(half)
        yield at_most("  p99 at twice / at half the capacity, x", slow / fair, 2, f"{slow:.0f} ms, {fair:.0f} ms")
        flying = [reply for reply in last if reply.started < stop.at - IN_FLIGHT_S and reply.ended > stop.at]
        lost = [reply.told() for reply in flying if reply.status == 0]
        yield none_of("  lost at SIGTERM", lost, f"{len(flying)} in flight; exit status {exit_status}")

    def switch(self) -> Iterator[Figure]:
        """The alias moves under load, there and back."""
        expected = Expected(self.scores)
        with Server(self.root, "--poll-s", "1") as server:
            mover = threading.Thread(target=self._move_there_and_back)
            mover.start()
            replies = asyncio.run(closed_loop(server.url, self.photos, 16, lambda: not mover.is_alive()))
        failed = [reply.told() for reply in replies if reply.status != 200]
        yield none_of("alias moved: failed requests", failed, f"of {len(replies)}")
        yield none_of("  wrong answers", expected.faults(replies))
        switched = int("".join(expected.order()) in ("121", "12121", "1212121"))  # overlapping answers may cross
        yield at_least("  answers switch there and back", switched, 1, f"versions: {' '.join(expected.order())}")

    def planted(self) -> Iterator[Figure]:
        """Planted code; the tests are the list of places."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_planted.py"]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        last = (answer.stdout.strip().splitlines() or [answer.stderr.strip()])[-1]
        yield Figure("planted code: exit status of its tests", answer.returncode, "0", answer.returncode == 0, last)

    def _move_there_and_back(self) -> None:
        for version in ("2", "1"):
            time.sleep(self.size.seconds / 6)
            point_to(self.root, version)
        time.sleep(max(10, self.size.seconds / 6))


PARTS = ("mutated", "decoder", "throughput", "overload", "switch", "planted")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    size = SoakSize(options.requests, options.files, options.clients, options.seconds, options.seed)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), options.models, size)
        for part in options.parts:
            for figure in getattr(soak, part)():
                figures.append(figure)
                print(figure.line(), flush=True)
    report = {"size": asdict(size), "figures": [asdict(figure) for figure in figures]}
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(not all(figure.reached for figure in figures))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--requests", type=int, default=10_000, help="mutated requests")
    parser.add_argument("--files", type=int, default=100_000, help="with mutated headers")
    parser.add_argument("--clients", type=int, default=200, help="at a time, under overload")
    parser.add_argument("--seconds", type=float, default=60, help="of load")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of classifier/")
    parser.add_argument("--report", type=Path, default=Path("reports/soak.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
