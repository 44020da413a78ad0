"""The plan as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import yaml
from rich.table import Table

from tailorset.commands.planning.plan import SHARED, Plan
from tailorset.commands.planning.workload import Cost
from tailorset.evaluation.alternative import Alternative
from tailorset.messages import GIB, count

UNKNOWN_LOSS = "What these cost in mAP is not estimated: run with one of them, and `tailorset plan` says what it did."


def plan_table(plan: Plan, last: Mapping[str, float], hourly_price: float | None = None) -> Table:
    """Return one row per stage.

    last: seconds that each stage took when it last ran. hourly_price: of this device, in any currency.
    """
    table = Table("stage", title="What this params.yaml takes on this device")
    priced = [] if hourly_price is None else ["price"]
    for column in ("work", "time", *priced, "TFLOP", "disk", "last run"):
        table.add_column(column, justify="right")
    for name in plan.stages:
        parts = [f"{work.amount:,.0f} {_plural(work.unit)}" for work in plan.work if work.stage == name]
        cells = _cells(plan.stage(name), hourly_price)
        table.add_row(name, "\n".join(parts), *cells, _clock(last[name]) if name in last else "-")
    starts, run = (_cells(cost, hourly_price) for cost in (plan.starts, plan.run))
    table.add_row("starting", f"{len(plan.stages)} stages", *starts, "-", end_section=True)
    known = all(name in last for name in plan.stages)
    table.add_row("run", "", *run, f"{_clock(sum(last[name] for name in plan.stages))} + starts" if known else "-")
    return table


def notes(plan: Plan, hourly_price: float | None = None) -> Iterator[str]:
    """Yield the basis of the estimate, the caps, and cheaper settings."""
    block, drawing = plan.params.generate_images, plan.drawing
    yield (
        f"Sampled here: {plan.accepted_replies:.0%} of the LLM's replies and {plan.pass_rate:.0%} of a batch of images"
        " are accepted."
    )
    tuned = plan.params.tune_text_encoder.num_updates or plan.params.tune_unet.num_updates
    later = ["tuning"] if tuned else []
    later += [block.allocation.name] if block.allocation.name != "turns" else []
    if later:
        yield f"The sample is drawn before {' and '.join(later)}, with which other images are kept."
    yield (
        f"So about {drawing.drawn:,} images are drawn and {drawing.kept:,} kept;"
        f" {drawing.short} of {len(plan.label_space.unseen)} labels stay under their quota."
        f" Cap: generate_images.max_images {block.max_images:,}."
    )
    if block.negative_images:
        yield f"In addition {count(block.negative_images, 'image')} of seen labels are drawn as negatives."
    if hourly_price is not None and drawing.kept:
        costs = (plan.stage("generate_images"), plan.run)
        drawn, whole = (f"{_price(cost, hourly_price) / drawing.kept:,.5f}" for cost in costs)
        yield f"Price per kept image: {drawn} to draw it, {whole} with the whole run."
    if (processes := plan.params.num_processes) > 1:
        yield f"Time of {', '.join(SHARED)} is that of one process, divided by num_processes {processes}."
    hours = plan.params.max_hours
    yield "Cap of the run: " + ("none; max_hours in params.yaml sets one." if hours is None else f"max_hours {hours}.")
    cheaper = list(plan.cheaper())
    for key, value, smaller, saved in cheaper:
        yield f"Cheaper by {_saving(saved, hourly_price)}: {key} {value} -> {smaller}"
    if cheaper:
        yield UNKNOWN_LOSS


def measured_notes(plan: Plan, alternatives: Sequence[Alternative], hourly_price: float | None = None) -> Iterator[str]:
    """Yield the cheapest measured run with a mAP like that of the present settings, and how many were too bad."""
    savings = [
        (saved, one)
        for one in alternatives
        if (saved := plan.saved_by({key: yaml.safe_load(value) for key, value in one.changes.items()})) is not None
    ]
    cheaper = sorted((pair for pair in savings if pair[0] > 0), key=lambda pair: -pair[0])
    as_good = [pair for pair in cheaper if not pair[1].is_worse]
    for saved, one in as_good[:1]:
        changes = ", ".join(f"{key} {value}" for key, value in one.changes.items())
        differences = ", ".join(f"{title} {value.in_percent(signed=True)}" for title, value in one.differences.items())
        yield f"Measured: {changes} is cheaper by {_saving(saved, hourly_price)} and not measurably worse."
        yield f"Run {one.name} minus the run of params.yaml, 95 % intervals over the test photos: {differences}."
    if worse := len(cheaper) - len(as_good):
        yield f"{count(worse, 'cheaper measured run')} had a lower mAP."
    if unknown := len(alternatives) - len(savings):
        yield f"{count(unknown, 'measured run')} not considered: other settings differ than the amount of work."


def over_cap(plan: Plan) -> str:
    """Reason why a run is not within the cap; "" if it is."""
    cap, hours = plan.params.max_hours, plan.run.seconds / 3600
    if cap is None or hours <= cap:
        return ""
    return f"A run takes about {hours:.2f} hours, more than max_hours {cap}: raise it, or take what is cheaper"


def _cells(cost: Cost, hourly_price: float | None) -> list[str]:
    priced = [] if hourly_price is None else [f"{_price(cost, hourly_price):,.2f}"]
    flops = f"{cost.flops / 1e12:,.2f}" if cost.flops else "-"
    return [_clock(cost.seconds), *priced, flops, f"{cost.bytes / GIB:,.2f} GiB" if cost.bytes else "-"]


def _saving(seconds: float, hourly_price: float | None) -> str:
    return _clock(seconds) + ("" if hourly_price is None else f" or {seconds / 3600 * hourly_price:,.2f}")


def _price(cost: Cost, hourly_price: float) -> float:
    return cost.seconds / 3600 * hourly_price


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _plural(unit: str) -> str:
    word, _, rest = unit.partition(" ")
    if unit == "reply":
        return "replies"
    return f"{word}s {rest}" if rest in ("captioned", "encoded", "learned", "read", "scored", "judged") else f"{unit}s"
