"""What a parent run shows first in MLflow: its results as a table, a few headline metrics, data and model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tailorset.commands.status import COLUMNS, ROWS, percent

HEADLINE = "_headline/"  # MLflow sorts metrics by name: these come first
DATA_SETS = ("data/real", "data/filtered")
MAX_DIGEST_CHARS = 36  # of MLflow


def headline(metrics: Mapping[str, float]) -> dict[str, float]:
    """The measures of the results table, of ours, under names that are listed before all others."""
    return {HEADLINE + key: metrics[key] for key in COLUMNS.values() if key in metrics}


def description(metrics: Mapping[str, float], model: str) -> str:
    """The results table in Markdown, and where the registered version and the data card are."""
    rows = [["test split, %", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    rows += [[row, *(percent(metrics.get(prefix + key)) for key in COLUMNS.values())] for row, prefix in ROWS.items()]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return f"{table}\n\nModel: `{model}`. Its model card and the data card are among this run's artifacts."


def data_sets(lock: Path) -> dict[str, str]:
    """{path: digest} of the products that the classifier learned from, as dvc.lock has them; {} before DVC wrote it."""
    content: Any = yaml.safe_load(lock.read_text(encoding="utf-8")) if lock.exists() else None
    stages = (content or {}).get("stages", {}).values()
    outs = {out["path"]: out.get("md5", "") for stage in stages for out in stage.get("outs", [])}
    return {path: outs[path].removesuffix(".dir")[:MAX_DIGEST_CHARS] for path in DATA_SETS if path in outs}
