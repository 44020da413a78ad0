"""The tables of docs/performance.md, from the figures of benchmarks/real_size.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from performance_page import put, significant
from real_stages import FULL_GRADIENT, ONE_BY_ONE, PUBLISHED_LOOP, STOCK, STOCK_BATCHED, TEXTS_AGAIN

from tailorset.messages import GIB

PARTS = {
    "generation": "drawing images",
    "fast": "the same, fast preset",
    "tuning": "tuning the text encoder",
    "filter": "scoring and filtering",
    "classifier": "training the classifier",
    "llm": "writing prompts",
}
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
DENOISERS_HEAD = (
    "generator",
    "step of one image",
    "network of a step",
    "other parts",
    "all weights",
    "TFLOP",
    "activations",
    *(f"seconds, {title}" for title in DEVICES.values()),
)
HEAD = ("stage", "what ran", "peak memory", "per second", "TFLOP each", "MFU", "goal on a GPU")
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """A bound of one figure of a row, or of one of its `times`; from below unless `at_most`."""

    key: str
    bound: float
    text: str
    at_most: bool = False

    def verdict(self, row: Mapping[str, Any]) -> str:
        value = {**row, **row["times"]}.get(self.key)
        if value is None:
            return "not measured"
        return "reached" if (value <= self.bound if self.at_most else value >= self.bound) else "**missed**"


def at_most_gib(size: int) -> Goal:
    return Goal("peak_bytes", size * GIB, f"<= {size} GiB", at_most=True)


def at_least(bound: float, way: str) -> Goal:
    return Goal(way, bound, f">= {bound:g} times {way}")


GOALS = {
    "generation": (
        Goal("mfu", 0.4, "MFU >= 40 %"),
        at_least(3, STOCK),
        at_least(1.3, STOCK_BATCHED),
        at_most_gib(8),
    ),
    "fast": (at_least(20, PUBLISHED_LOOP),),
    "tuning": (at_least(4, FULL_GRADIENT), at_most_gib(16)),
    "filter": (Goal("samples_per_s", 15_000, ">= 15,000 images/s"), at_least(10, TEXTS_AGAIN)),
    "classifier": (at_most_gib(8),),
    "llm": (at_least(20, ONE_BY_ONE), at_most_gib(6)),
}


def page(figures: Figures) -> str:
    """Both devices' tables, then the sizes that were checked."""
    blocks = [device_block(title, figures.get(device, {}), device == "cuda") for device, title in DEVICES.items()]
    return "\n\n".join([*blocks, shapes_block(figures.get("shapes", {}))])


def device_block(title: str, rows: Mapping[str, Any], judged: bool) -> str:
    """One table; `judged`: the goals are meant for this device."""
    machines = dict.fromkeys(row["machine"] for row in rows.values() if "machine" in row)
    lines = [f"**{title}**" + (f": {'; '.join(machines)}." if machines else ": not measured."), ""]
    lines += [_line(HEAD), "|" + "---|" * len(HEAD)]
    return "\n".join([*lines, *(_line(_cells(part, rows.get(part, {}), judged)) for part in PARTS)])


def shapes_block(shapes: Mapping[str, int]) -> str:
    sizes = ", ".join(f"{name} {count:,}" for name, count in shapes.items())
    text = f"Parameters, the same number as in the published weights: {sizes}."
    return text if shapes else "Shapes: not measured."


def write_docs(figures: Figures) -> None:
    """Put the tables between the marks of docs/performance.md."""
    put("real_size", page(figures))
    put("denoisers", denoisers_page(figures))


def denoisers_page(figures: Figures) -> str:
    """The table of larger generators, then the machines that timed their steps."""
    rows = [row for _, row in sorted(figures.get("denoisers", {}).items())]  # as the report stores them
    if not rows:
        return "Larger generators: not measured."
    steps = [(device, step) for row in rows for device, step in row.get("steps", {}).items() if "seconds" in step]
    machines = dict.fromkeys(f"{DEVICES[device]}: {step['machine']}" for device, step in steps)
    lines = [_line(DENOISERS_HEAD), "|" + "---|" * len(DENOISERS_HEAD), *(_line(_denoiser_cells(row)) for row in rows)]
    return "\n".join([*lines, *(["", f"{'; '.join(machines)}."] if machines else [])])


def _denoiser_cells(row: Figures) -> list[str]:
    parts = {
        name: f"{_millions(part['parameters'])}, {_gib(part['bytes'])}" for name, part in sorted(row["parts"].items())
    }
    network, total = parts.pop("network"), sum(part["bytes"] for part in row["parts"].values())
    passes = "1 pass" if row["passes"] == 1 else f"{row['passes']} passes"
    return [
        row["title"],
        f"{row['image_px']} px, {passes}",
        network,
        "; ".join(f"{name} {size}" for name, size in parts.items()),
        _gib(total),
        significant(row["flops"] / 1e12),
        _gib(row["activation_bytes"]),
        *(_seconds(row.get("steps", {}).get(device, {})) for device in DEVICES),
    ]


def _seconds(step: Figures) -> str:
    reason = f": {step['reason']}" if "reason" in step else ""
    return significant(step["seconds"]) if "seconds" in step else f"not measured{reason}"


def _millions(count: int) -> str:
    return f"{significant(count / 1e6)} M"


def _gib(size: int) -> str:
    return f"{size / GIB:.2g} GiB"


def _cells(part: str, row: Mapping[str, Any], judged: bool) -> list[str]:
    goals = GOALS[part]
    if "what" not in row:
        reason = f": {row['reason']}" if row else ""
        return [PARTS[part], f"not measured{reason}", *[""] * 4, "; ".join(goal.text for goal in goals)]
    rate = f"{significant(row['samples_per_s'])} {row['samples']}"
    times = "".join(f", {significant(ratio)} times {way}" for way, ratio in sorted(row["times"].items()))
    verdicts = [f"{goal.text}: {goal.verdict(row)}" for goal in goals]
    return [
        PARTS[part],
        row["what"],
        f"{row['peak_bytes'] / GIB:.1f} GiB",
        rate + times,
        significant(row["flops"] / 1e12),
        f"{row['mfu']:.0%} of {significant(row['roof'] / 1e12)} TFLOP/s",
        "; ".join(verdicts if judged else [goal.text for goal in goals]),
    ]


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
