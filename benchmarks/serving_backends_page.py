"""The table of docs/performance.md from the figures of benchmarks/serving_backends.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from performance_page import put, significant

COLUMNS = {
    "single": "one photo, p50 / p99",
    "batched": "in batches",
    "client": "request of one client, p50 / p99",
    "answers": "answers at full load",
    "half": "request at half load, p50 / p99",
}


def table(figures: Mapping[str, Any]) -> str:
    """Markdown: a row per backend, then what the columns mean."""
    settings, rows = figures["settings"], figures["rows"]
    rate = rows["torch"]["half_rate"]
    lines = [
        f"{settings['labels']} labels, {settings['image_px']} px, on cpu ({settings['machine']}, {settings['threads']}"
        f" threads, torch {settings['torch']}, onnxruntime {settings['onnxruntime']}); {settings['turns']} turns.",
        "",
        "| backend | largest score difference | " + " | ".join(COLUMNS.values()) + " |",
        "|---|" + "---|" * (1 + len(COLUMNS)),
        *(_row(name, row, settings["limit"]) for name, row in rows.items()),
        "",
        f"Differences are over {settings['photos']} photos. The first two columns of times are computing alone, in"
        f" batches of {settings['batch']}; the others are requests to `tailorset serve`, with {settings['clients']}"
        f" clients at full load. Half load is {significant(rate)} requests a second for each backend, half of what"
        " torch answers.",
    ]
    return "\n".join(lines)


def write_docs(figures: Mapping[str, Any]) -> None:
    """Put the table between the marks of docs/performance.md."""
    put("serving_backends", table(figures))


def _row(name: str, row: Mapping[str, float], limit: float) -> str:
    moved = f"{row['difference']:.1e}" if row["difference"] else "0"
    if row["difference"] >= limit:
        moved += f", not timed: {limit} or more"
    return f"| {name} | {moved} | " + " | ".join(_cell(kind, row) for kind in COLUMNS) + " |"


def _cell(kind: str, row: Mapping[str, float]) -> str:
    if f"{kind}_per_s" in row:
        return f"{significant(row[f'{kind}_per_s'])} / s"
    if f"{kind}_p50_ms" in row:
        return f"{significant(row[f'{kind}_p50_ms'])} / {significant(row[f'{kind}_p99_ms'])} ms"
    return ""
