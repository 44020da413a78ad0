"""The table of docs/performance.md from the figures of benchmarks/bench.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from performance_page import put, significant


def table(figures: Mapping[str, Any]) -> str:
    """Markdown: a row per comparison, then the share of the machine that drawing uses."""
    settings, use = figures["settings"], figures["utilisation"]
    lines = [
        f"{settings['model']}, {settings['dtype']}, on {settings['device']} ({settings['machine']},"
        f" {settings['threads']} threads, torch {settings['torch']}); medians of {settings['repetitions']} turns.",
        "",
        "| comparison | ours | plain way | times faster | goal | conditions | date |",
        "|---|---|---|---|---|---|---|",
        *(_row(row) for row in figures["comparisons"].values()),
        "",
        *_utilisation(use),
    ]
    return "\n".join(lines)


def write_docs(figures: Mapping[str, Any]) -> None:
    """Put the table between the marks of docs/performance.md."""
    put("bench", table(figures))


def _row(row: Mapping[str, Any]) -> str:
    goal = ""
    if row["goal"]:
        reached = row["equal"] and row["ratio"] >= row["goal"]
        goal = f"{row['goal']:g}: {'reached' if reached else '**missed**'}"
    times = f"{significant(row['ours_s'] * 1e3)} ms | {significant(row['plain_s'] * 1e3)} ms | {row['ratio']:.1f}"
    return f"| {row['name']} | {times} | {goal} | {row['note']} | {row['date']} |"


def _utilisation(use: Mapping[str, Any]) -> list[str]:
    roof, best = max(use["roofs"].items(), key=lambda item: item[1])
    roofs = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in use["roofs"].items())
    verdict = "reached" if use["mfu"] >= use["goal"] else "**missed**"
    return [
        f"While drawing, the UNet runs at {use['rate'] / 1e9:.0f} GFLOP/s, {use['mfu']:.0%} of the best rate measured"
        f" in the same process ({roof}: {best / 1e9:.0f}; goal {use['goal']:.0%}: {verdict}). It is"
        f" {use['unet_share_of_flops']:.0%} of drawing's FLOPs and {use['unet_share_of_time']:.0%} of its time."
        f" GFLOP/s of the candidates: {roofs}.",
    ]
