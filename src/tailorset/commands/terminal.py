"""What the commands share: the console, and ending with one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console

console = Console(soft_wrap=True, highlight=False)
PARAMS = Path("params.yaml")


def or_stop(function: Any, *arguments: Any) -> Any:
    """Call a function; what it cannot use is one line, and the command ends."""
    try:
        return function(*arguments)
    except (ValueError, OSError) as error:
        stop(str(error))


def stop(message: str) -> NoReturn:
    """End the command with a message and status 1."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(message, markup=False)
    raise typer.Exit(1)
