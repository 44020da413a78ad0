"""The plan as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table

from tailorset.commands.planning.plan import Plan
from tailorset.commands.planning.workload import Cost
from tailorset.messages import GIB


def plan_table(plan: Plan, last: Mapping[str, float]) -> Table:
    """One row per stage; last: seconds that each stage took when it last ran."""
    table = Table("stage", title="What this params.yaml takes on this device")
    for column in ("work", "time", "TFLOP", "disk", "last run"):
        table.add_column(column, justify="right")
    for name in plan.stages:
        parts = [f"{work.amount:,.0f} {_plural(work.unit)}" for work in plan.work if work.stage == name]
        table.add_row(name, "\n".join(parts), *_cells(plan.stage(name)), _clock(last[name]) if name in last else "-")
    table.add_row("starting", f"{len(plan.stages)} stages", *_cells(plan.starts), "-", end_section=True)
    known = all(name in last for name in plan.stages)
    table.add_row("run", "", *_cells(plan.run), f"{_clock(sum(last.values()))} + starts" if known else "-")
    return table


def notes(plan: Plan) -> Iterator[str]:
    """Basis of the estimate, the caps, and cheaper settings."""
    block, drawing = plan.params.generate_images, plan.drawing
    yield (
        f"Sampled here: {plan.accepted_replies:.0%} of the LLM's replies and {plan.pass_rate:.0%} of a batch of images"
        " are accepted."
    )
    yield (
        f"So about {drawing.drawn:,} images are drawn and {drawing.kept:,} kept;"
        f" {drawing.short} of {len(plan.label_space.unseen)} labels stay under their quota."
        f" Cap: generate_images.max_images {block.max_images:,}."
    )
    hours = plan.params.max_hours
    yield "Cap of the run: " + ("none; max_hours in params.yaml sets one." if hours is None else f"max_hours {hours}.")
    for key, value, smaller, saved in plan.cheaper():
        yield f"Cheaper by {_clock(saved)}: {key} {value} -> {smaller}"


def over_cap(plan: Plan) -> str:
    """Reason why a run is not within the cap; "" if it is."""
    cap, hours = plan.params.max_hours, plan.run.seconds / 3600
    if cap is None or hours <= cap:
        return ""
    return f"A run takes about {hours:.2f} hours, more than max_hours {cap}: raise it, or take what is cheaper"


def _cells(cost: Cost) -> tuple[str, str, str]:
    flops = f"{cost.flops / 1e12:,.2f}" if cost.flops else "-"
    return _clock(cost.seconds), flops, f"{cost.bytes / GIB:,.2f} GiB" if cost.bytes else "-"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _plural(unit: str) -> str:
    word, _, rest = unit.partition(" ")
    if unit == "reply":
        return "replies"
    return f"{word}s {rest}" if rest in ("read", "scored", "judged") else f"{unit}s"
