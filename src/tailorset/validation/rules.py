"""Vocabulary of the data suites: rules in words, and columns that name the problem of a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class DataRule:
    """One expectation of Great Expectations: its class name, the rule in words, and the remedy if it fails."""

    title: str
    expectation: str
    arguments: dict[str, Any]
    remedy: str
    severity: Severity = "critical"


@dataclass(frozen=True)
class Table:
    """Rows and the rules that they must keep. Rules on columns need a column `row`, which identifies each row."""

    name: str
    frame: pd.DataFrame
    rules: list[DataRule]


def some_rows(title: str, remedy: str) -> DataRule:
    return DataRule(title, "ExpectTableRowCountToBeBetween", {"min_value": 1}, remedy)


def unique(title: str, column: str, remedy: str, severity: Severity = "critical") -> DataRule:
    return DataRule(title, "ExpectColumnValuesToBeUnique", {"column": column}, remedy, severity)


def one_of(title: str, column: str, choices: Sequence[str], remedy: str, severity: Severity = "critical") -> DataRule:
    arguments = {"column": column, "value_set": list(choices)}
    return DataRule(title, "ExpectColumnValuesToBeInSet", arguments, remedy, severity)


def blank(title: str, column: str, remedy: str, severity: Severity = "critical") -> DataRule:
    """Expect a column of problems to be "" in every row."""
    return one_of(title, column, [""], remedy, severity)


def between(
    title: str, column: str, least: float, most: float | None, remedy: str, severity: Severity = "critical"
) -> DataRule:
    arguments = {"column": column, "min_value": least, "max_value": most}
    return DataRule(title, "ExpectColumnValuesToBeBetween", arguments, remedy, severity)


def where(wrong: NDArray[np.bool_] | pd.Series, problem: str) -> NDArray[np.object_]:
    """Return (N,) the problem in the rows where `wrong` holds, "" elsewhere."""
    return np.where(np.asarray(wrong, dtype=bool), problem, "").astype(object)


def named(wrong: NDArray[np.bool_], names: Sequence[str]) -> list[str]:
    """Return (N,) the names of the columns of `wrong`, (N, L), that hold in a row."""
    problems = [""] * len(wrong)
    for row in np.flatnonzero(wrong.any(axis=1)).tolist():
        problems[row] = ", ".join(compress(names, wrong[row]))
    return problems


def listed(names: Iterable[str]) -> str:
    """Join names in alphabetical order; "" for none."""
    return ", ".join(sorted(names))
