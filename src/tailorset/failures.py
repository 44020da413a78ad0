"""One clear block for whatever ends a stage: what, where, and how to go on. The traceback goes to a file."""

from __future__ import annotations

import os
import sys
import traceback
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType

LOG = Path(".work/errors.log")
OUR_CODE = (Path(__file__).parent, Path("pipeline").resolve())
SELF_EXPLAINING = (ValueError, OSError, MemoryError, FloatingPointError)  # raised by our code, they name the remedy
MAX_PLACES = 2


def explain_failures(stage: str) -> None:
    """Replace the traceback with which Python ends this process."""
    sys.excepthook = partial(_explain, stage)


def _explain(stage: str, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        text = f"{stage} was interrupted. What is finished is kept: run the same command again to go on."
    else:
        text = "\n".join(
            [
                f"FAILED: {stage}",
                *(f"  {line}" for line in _what(error, trace).splitlines()),
                f"  where:      {_where(trace)}",
                f"  traceback:  {_keep(stage, error)}",
                "  What is finished is kept: once this is mended, run the same command again to go on.",
            ]
        )
    print(f"\n{text}", file=sys.stderr)


def _what(error: BaseException, trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    is_ours = bool(frames) and _is_ours(frames[-1].filename)
    has_own_class = type(error).__module__.startswith("tailorset.")
    if is_ours and (has_own_class or isinstance(error, SELF_EXPLAINING)):
        return str(error)
    return "".join(traceback.format_exception_only(error)).strip()


def _where(trace: TracebackType | None) -> str:
    """The innermost lines of this project's code, innermost first."""
    ours = [frame for frame in traceback.extract_tb(trace) if _is_ours(frame.filename)]
    return ", ".join(
        f"{_short(Path(frame.filename))}:{frame.lineno} ({frame.name})" for frame in ours[: -MAX_PLACES - 1 : -1]
    )


def _keep(stage: str, error: BaseException) -> str:
    """Append the traceback to the log of the project, also from DVC's temporary copies."""
    path = Path(os.environ.get("DVC_ROOT", ".")) / LOG
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {stage}\n{''.join(traceback.format_exception(error))}\n")
    except OSError as unwritten:
        return f"not kept, {path} cannot be written ({unwritten.strerror})"
    return f"the end of {_short(path)}"


def _is_ours(filename: str) -> bool:
    return any(Path(filename).resolve().is_relative_to(folder) for folder in OUR_CODE)


def _short(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
