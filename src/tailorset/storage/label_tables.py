"""Tables with a row per label, as CSV."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def read_label_table(path: Path) -> pd.DataFrame:
    """Read a CSV file with a column `label`, whose values stay text: `nan` and `007` are names as well."""
    others = [column for column in pd.read_csv(path, nrows=0) if column != "label"]
    empty = {column: [""] for column in others}
    return pd.read_csv(path, dtype={"label": str}, keep_default_na=False, na_values=empty)
