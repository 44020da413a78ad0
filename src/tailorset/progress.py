"""Progress of long work: a bar on a terminal, a line now and then elsewhere, and reports of the stage that is running.

Every loop that takes a while counts in a `Bar`; `reporting` names the stage and receives the reports.
"""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from tqdm import tqdm

SECONDS_PER_LINE = 30  # where output is no terminal, e.g. a log file
SECONDS_PER_REPORT = 1
FORMAT = "{line} |{bar:12}| {n_fmt}/{total_fmt} {unit}{postfix}"


@dataclass(frozen=True)
class Position:
    """Place of a stage in the pipeline.

    expected: seconds that the stage takes, as far as known. after: seconds of all later stages, if all are known.
    """

    stage: str
    number: int
    of: int
    expected: float | None = None
    after: float | None = None

    def __str__(self) -> str:
        return f"{self.stage}, stage {self.number} of {self.of}"


@dataclass(frozen=True)
class Report:
    """Progress of the work.

    share: in [0, 1]. left, after: seconds left of this, and seconds of the later stages. others: cores that other
    programs use.
    """

    title: str
    share: float | None = None
    left: float | None = None
    after: float | None = None
    others: float = 0.0

    def __str__(self) -> str:
        parts = [self.title]
        if self.share is not None:
            parts.append(f"{math.floor(100 * self.share)} %")
        if self.left is not None:
            parts.append(f"{spoken(self.left)} left{'' if self.after is not None else ' in this stage'}")
            if self.after:
                parts.append(f"{spoken(self.left + self.after)} with the stages after it")
        if self.others:
            parts.append(f"slowed by other programs ({self.others:.1f} cores)")
        return ", ".join(parts)


@dataclass
class Running:
    """A stage that this process works on. is_visible: False where another process shows the same progress."""

    position: Position
    tell: Callable[[Report], object]
    is_visible: bool
    others: Callable[[], float]
    start: float = field(default_factory=time.monotonic)
    last_report: float = -math.inf

    def report(self, report: Report) -> None:
        if self.is_visible and time.monotonic() - self.last_report >= SECONDS_PER_REPORT:
            self.last_report = time.monotonic()
            self.tell(report)

    @property
    def left(self) -> float | None:
        """Seconds until the usual end of the stage; None where there is none, or it is over."""
        left = self.position.expected and self.position.expected - (time.monotonic() - self.start)
        return left if left and left > 0 else None


_running: Running | None = None


@contextmanager
def reporting(
    position: Position,
    tell: Callable[[Report], object],
    is_visible: bool = True,
    others: Callable[[], float] = lambda: 0.0,
) -> Iterator[None]:
    """Give every bar inside the name of the stage, and `tell` at most one report per second.

    others: number of cores that other programs use, 0 where they slow nothing.
    """
    global _running
    before, _running = _running, Running(position, tell, is_visible, others)
    try:
        _running.report(Report(str(position), left=position.expected, after=position.after))
        yield
    finally:
        _running = before


@contextmanager
def step(title: str, number: int, of: int) -> Iterator[None]:
    """Let every bar inside report as step `number` of `of` in the running stage."""
    global _running
    before = _running
    _running = before and replace(before, position=Position(title, number, of))
    try:
        yield
    finally:
        _running = before


class Bar(tqdm):
    """tqdm, for loops of this project. is_whole: it counts all of a stage's work, so it knows what is left of it."""

    def __init__(self, *arguments: Any, is_whole: bool = False, **options: Any) -> None:
        self.is_whole, self.is_terminal, self.last_line = is_whole, sys.stderr.isatty(), time.monotonic()
        options = {"leave": is_whole, "bar_format": FORMAT, "dynamic_ncols": True, "mininterval": 0.5} | options
        options["disable"] = _running is not None and not _running.is_visible
        options["file"] = sys.stderr if self.is_terminal else io.StringIO()  # what tqdm would write, carriage returns
        super().__init__(*arguments, **options)

    @property
    def format_dict(self) -> dict[str, Any]:
        """Values for FORMAT."""
        return super().format_dict | {"line": str(self.report())}

    def report(self) -> Report:
        """Describe the progress, and the time left of it or of the stage."""
        state = super().format_dict
        share = min(1.0, self.n / self.total) if self.total else None
        done = self.n - self.initial
        own = state["elapsed"] / done * max(0, self.total - self.n) if self.total and done > 0 else None
        if _running is None:
            return Report(self.desc_text, share, own, after=0.0)
        position, cores = _running.position, _running.others()
        if self.is_whole:
            return Report(str(position), share, own if own is not None else _running.left, position.after, cores)
        return Report(f"{position}, {self.desc_text}", share, _running.left, position.after, cores)

    @property
    def desc_text(self) -> str:
        return str(self.desc or "").removesuffix(": ")

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Show and report the state; tqdm calls this at most twice a second."""
        report = self.report()
        if _running is not None:
            _running.report(report)
        if self.is_terminal:
            return bool(super().display(msg, pos))
        if time.monotonic() - self.last_line >= SECONDS_PER_LINE:
            self.last_line = time.monotonic()
            print(report, file=sys.stderr, flush=True)
        return True


def spoken(seconds: float) -> str:
    """A duration as people say it: about 3 minutes."""
    if seconds < 60:
        return "less than a minute"
    if seconds < 90:
        return "about a minute"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours"
