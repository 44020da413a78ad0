"""Limits of a stage: a cap on its time, a lock on its resume folder, and a clear error when the disk is full."""

from __future__ import annotations

import errno
import logging
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
log = logging.getLogger(__name__)


class OutOfTime(BaseException):
    """The end of a stage's time; not an Exception, so that nothing which tolerates errors goes on."""


@contextmanager
def time_limit(name: str, max_hours: float | None) -> Iterator[None]:
    """End what runs longer, as a kill would: finished shards and checkpoints stay.

    Raises:
        OutOfTime: the hours are over.
    """

    def stop(*_: object) -> None:
        raise OutOfTime(
            f"{name} has run for max_hours {max_hours}: what is finished is kept; raise it in params.yaml and go on"
        )

    if max_hours is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max_hours * 3600)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def exclusive_run(name: str, lock: Path) -> Iterator[None]:
    """Hold the lock of these settings, after waiting for a run that holds it; a killed process frees its lock."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        log.warning("%s is already running with the same settings: waiting until it is done", name)
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextmanager
def clear_when_full(name: str) -> Iterator[None]:
    """Name the remedy in an error that means there is no room left to write.

    Raises:
        OSError: the disk, a quota or a limit on the size of files is reached.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = getattr(error, "errno", None)
        if found := re.search(r"os error (\d+)", str(error)):  # safetensors has the code in its message only
            code = int(found[1])
        if code not in NO_ROOM:
            raise
        raise OSError(
            code, f"{name}: no room left to write ({error}); free some and run it again: what is finished is kept"
        ) from error
