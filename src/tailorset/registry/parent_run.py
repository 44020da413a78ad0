"""Parent run in MLflow: its results as a table, a few headline metrics, data and model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tailorset.evaluation.results import columns, shown_rows

HEADLINE = "_headline/"  # MLflow sorts metrics by name: these come first
DATA_SETS = ("data/real", "data/filtered")
MAX_DIGEST_CHARS = 36  # of MLflow


def headline(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return our measures of the results table, under names that are listed before all others."""
    return {HEADLINE + key: metrics[key] for key in columns(metrics).values() if key in metrics}


def description(metrics: Mapping[str, float], model: str) -> str:
    """Return the results table in Markdown, with a pointer to the registered version and the data card."""
    titles = columns(metrics)
    rows = [["test split, %", *titles], ["---"] * (1 + len(titles))]
    rows += shown_rows(metrics)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return f"{table}\n\nModel: `{model}`. Its model card and the data card are among this run's artifacts."


def data_sets(lock: Path) -> dict[str, str]:
    """Return {path: digest} of the products that the classifier learned from, by dvc.lock; {} before DVC wrote it."""
    content: Any = yaml.safe_load(lock.read_text(encoding="utf-8")) if lock.exists() else None
    stages = (content or {}).get("stages", {}).values()
    outs = {out["path"]: out.get("md5", "") for stage in stages for out in stage.get("outs", [])}
    return {path: outs[path].removesuffix(".dir")[:MAX_DIGEST_CHARS] for path in DATA_SETS if path in outs}
