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
    """Measures the cores that other programs use, from one call to the next."""

    def __init__(self) -> None:
        self.last = self._times()
        self.recent = 0.0

    def recent_cores(self) -> float:
        """Return what `cores` last measured, renewed every few seconds; 0 below BUSY_CORES."""
        if time.monotonic() - self.last[0] >= SECONDS_PER_LOOK:
            cores = self.cores()
            self.recent = cores if cores >= BUSY_CORES else 0.0
        return self.recent

    def cores(self) -> float:
        """Return the mean number of cores since the last call, at least 0, without waiting."""
        before, self.last = self.last, self._times()
        seconds, all_programs, own = (now - then for now, then in zip(self.last, before, strict=True))
        return max(0.0, all_programs - own) / seconds if seconds else 0.0

    @staticmethod
    def _times() -> tuple[float, float, float]:
        """Return the time, and the CPU seconds used so far by all programs and by this one."""
        total, own = psutil.cpu_times(), psutil.Process().cpu_times()
        return time.monotonic(), total.user + total.system + getattr(total, "nice", 0.0), own.user + own.system


def cores_used_by_others(seconds: float) -> float:
    """Return the mean number of cores that other programs use during the next `seconds`."""
    others = Others()
    time.sleep(seconds)
    return others.cores()


def busiest(seconds: float) -> str:
    """Return name and id of the program that uses the CPU most, apart from this one; "" if none does."""
    processes = [process for process in psutil.process_iter() if process.pid != os.getpid()]
    shares = {}
    for wait in (0.0, seconds):  # psutil measures from the previous call on, so the first one only starts it
        time.sleep(wait)
        for process in processes:
            with suppress(psutil.Error):
                shares[f"{process.name()}, process {process.pid}"] = process.cpu_percent()
    top = max(shares, key=lambda name: shares[name], default="")
    return top if shares.get(top) else ""


def choose_wait_policy() -> bool:
    """If other programs compute on this machine, let threads of processes started from now on sleep while they wait.

    A waiting thread usually spins. If the thread that it waits for was preempted by another program, both lose their
    core for a time slice, and work of seconds takes minutes. On an idle machine spinning is a tenth to a quarter
    faster. Results are the same either way. A policy that the environment sets is kept.
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
    """Restart this process if another wait policy is better: OpenMP reads it only when it is loaded.

    Only a process whose own command is the running script restarts; a test that runs the script in-process does not.
    """
    is_own_command = sys.orig_argv[-len(sys.argv) :] == sys.argv
    if is_own_command and choose_wait_policy():
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
