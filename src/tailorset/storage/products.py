"""Products of stages: their tables, and the errors on those that are missing or cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tailorset.messages import reason_of


def read_table(path: Path, stage: str = "", columns: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table of a product. stage: the one that makes it. columns: those that it must have.

    Raises:
        ValueError: it is missing, or an earlier version of tailorset wrote it.
    """
    check_columns(path, columns, stage)
    return pd.read_parquet(path)


def check_columns(path: Path, columns: Sequence[str], stage: str = "") -> None:
    """Check that a table is there and has these columns. stage: the one that makes it.

    Raises:
        ValueError: it is missing, or an earlier version of tailorset wrote it.
    """
    if not path.is_file():
        raise ValueError(missing([path], stage))
    if fault := table_fault(path, columns):
        raise ValueError(f"{fault}: `make run` makes it again")


def table_fault(path: Path, columns: Sequence[str]) -> str:
    """Return what is wrong with a table that must have these columns, without a remedy; "" if nothing is."""
    import pyarrow.parquet as pq

    if not path.is_file():
        return f"{path} is missing"
    if lacking := sorted(set(columns).difference(pq.read_schema(path).names if columns else ())):
        return f"{path} is of an earlier version of tailorset, with no column {', '.join(lacking)}"
    return ""


def missing(paths: Sequence[object], stage: str = "") -> str:
    """Return the message on products that are not there. stage: the one that makes them."""
    verb, them = ("is", "it") if len(paths) == 1 else ("are", "them")
    make = f"`dvc repro {stage}`" if stage else "`make run`"
    named = ", ".join(map(str, paths))
    return f"{named} {verb} missing: `dvc pull` or `dvc checkout` restores {them}, {make} makes {them}"


def unusable(path: object, what: str, error: BaseException, stage: str) -> str:
    """Return the message on a product that cannot be read. what: its content; stage: the one that writes it."""
    if isinstance(error, FileNotFoundError):
        return missing([path], stage)
    if isinstance(error, OSError) and error.filename:
        return reason_of(error)
    return f"{path} does not hold {what} ({error}): run `dvc repro {stage}`"
