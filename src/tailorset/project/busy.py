"""Other programs on this machine: how many cores they use, and threads that let them work."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress

import psutil

BUSY_CORES = 0.5  # cores: below it a program in the background, above it one that computes
SECONDS_PER_LOOK = 10
POLICY = "OMP_WAIT_POLICY"
log = logging.getLogger(__name__)


class Others:
    """Cores that other programs used since the last look, or the beginning."""

    def __init__(self) -> None:
        self.last = self._times()
        self.recent = 0.0

    def recent_cores(self) -> float:
        """As `cores`, of the last seconds; 0 if there are not many."""
        if time.monotonic() - self.last[0] >= SECONDS_PER_LOOK:
            cores = self.cores()
            self.recent = cores if cores >= BUSY_CORES else 0.0
        return self.recent

    def cores(self) -> float:
        """Mean number of cores, at least 0; a look takes no time."""
        before, self.last = self.last, self._times()
        seconds, all_programs, own = (now - then for now, then in zip(self.last, before, strict=True))
        return max(0.0, all_programs - own) / seconds if seconds else 0.0

    @staticmethod
    def _times() -> tuple[float, float, float]:
        """Now, and the CPU seconds that all programs and this one have used."""
        total, own = psutil.cpu_times(), psutil.Process().cpu_times()
        return time.monotonic(), total.user + total.system + getattr(total, "nice", 0.0), own.user + own.system


def cores_used_by_others(seconds: float) -> float:
    """Mean number of cores during so many seconds."""
    others = Others()
    time.sleep(seconds)
    return others.cores()


def busiest(seconds: float) -> str:
    """Name and id of the program that computes most, apart from this one; empty if none does."""
    processes = [process for process in psutil.process_iter() if process.pid != os.getpid()]
    shares = {}
    for wait in (0.0, seconds):  # a share is that since the look before
        time.sleep(wait)
        for process in processes:
            with suppress(psutil.Error):
                shares[f"{process.name()}, process {process.pid}"] = process.cpu_percent()
    top = max(shares, key=lambda name: shares[name], default="")
    return top if shares.get(top) else ""


def choose_wait_policy() -> bool:
    """If other programs compute on this machine, let threads of processes started from now on sleep while they wait.

    A waiting thread usually spins. Where the one it waits for had to make room for another program, both lose their
    core for a time slice, and work that takes seconds takes minutes. Alone spinning is faster, by a tenth to a
    quarter. Results are the same either way. What the environment says already stays.
    """
    if POLICY in os.environ or os.environ.get("OMP_NUM_THREADS") == "1":
        return False
    cores = cores_used_by_others(0.3)
    if cores < BUSY_CORES:
        return False
    os.environ[POLICY] = "PASSIVE"
    log.warning("Other programs use %.1f of %d cores: this takes longer (%s=PASSIVE).", cores, os.cpu_count(), POLICY)
    return True


def yield_to_others() -> None:
    """Start this process again if another wait policy is better: OpenMP reads it only when it is loaded.

    Only a process whose command is the running script: one that merely runs it, as a test does, would be lost.
    """
    is_own_command = sys.orig_argv[-len(sys.argv) :] == sys.argv
    if is_own_command and choose_wait_policy():
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
