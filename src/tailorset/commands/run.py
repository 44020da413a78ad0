"""`dvc repro` without its own messages: stages report themselves what they do and why they fail."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import typer

from tailorset.commands.terminal import stop
from tailorset.project.busy import choose_wait_policy
from tailorset.project.running import forget_finished, running_stages

INTERRUPTED = "Interrupted between two stages. What is finished is kept: run the same command again to go on."


def run() -> None:
    """Run every stage that is out of date, as `dvc repro` does."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageCmdFailedError

    logging.getLogger("dvc").setLevel(logging.WARNING)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # stages say `python`
    choose_wait_policy()
    try:
        with Repo() as repo:
            done = repo.reproduce()
    except KeyboardInterrupt:
        stop(INTERRUPTED)
    except DvcException as error:
        cause = _cause(error)
        if isinstance(cause, StageCmdFailedError):  # the stage has said why
            raise typer.Exit(1) from None
        if isinstance(cause, LockError):
            stop(f"Another run is going on here ({'; '.join(running_stages(Path.cwd())) or 'between two stages'}).")
        stop(str(cause))
    forget_finished(Path.cwd())
    if not done:
        print("Every stage is up to date.")


def _cause(error: BaseException) -> BaseException:
    """The first of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
