"""Console of the commands, and their way to end with one clear line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console

from tailorset.messages import reason_of

# Names and values are shown as they are: some have [brackets] or :colons:, which rich would take for its own.
plain_console = partial(Console, soft_wrap=True, highlight=False, markup=False, emoji=False)
console = plain_console()
P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def stopping() -> Iterator[None]:
    """End the command with one line where it cannot use what it was given."""
    try:
        yield
    except (ValueError, OSError, MemoryError) as error:
        stop(reason_of(error))


def or_stop(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function inside `stopping`."""
    with stopping():
        return function(*arguments, **named)


def stop(message: str) -> NoReturn:
    """End the command with a message and status 1."""
    plain_console(stderr=True).print(message)
    raise typer.Exit(1)
