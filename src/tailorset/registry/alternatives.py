"""Measured runs beside the one of params.yaml: what they differ in, and what that changed in mAP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailorset.evaluation.alternative import Alternative
from tailorset.evaluation.bootstrap import Interval, difference, draw_resamples, interval_or_value
from tailorset.evaluation.results import MAPS
from tailorset.project.tracking import connect, is_set_up, run_params
from tailorset.registry.comparison import NUM_RESAMPLES, Execution, executions


def find_alternatives(settings: Mapping[str, Any], root: Path) -> list[Alternative]:
    """Return the runs that other settings made on the same test photos; none if these settings have no run.

    settings: params.yaml, flat.

    Raises:
        TrackingError: the store of runs cannot be used.
    """
    if not is_set_up(root):
        return []
    wanted = run_params(settings)
    known = [one for one in executions(*connect(root)) if one.metrics.keys() >= MAPS.keys()]
    present = next((one for one in known if one.params == wanted), None)
    if present is None or present.scores is None:
        return []
    others = [one for one in known if one.params.keys() == wanted.keys() and one.params != wanted]
    return [found for one in others if (found := _alternative(one, present)) is not None]


def _alternative(one: Execution, present: Execution) -> Alternative | None:
    """Compare with the present settings' run; None if photos differ, or are too few for an interval."""
    if one.scores is None or present.scores is None or not one.scores.is_like(present.scores):
        return None
    resamples = draw_resamples(1, len(present.scores.image_ids), NUM_RESAMPLES, seed=0)
    pairs = zip(*(scores.estimates(list(MAPS), resamples) for scores in (one.scores, present.scores)), strict=True)
    changed = [difference(ours, before) for ours, before in pairs]
    intervals = [interval_or_value(estimate.value, estimate.replicates) for estimate in changed]
    differences = {
        title: interval
        for title, interval in zip(MAPS.values(), intervals, strict=True)
        if isinstance(interval, Interval)
    }
    changes = {key: value for key, value in one.params.items() if value != present.params[key]}
    return Alternative(one.name, changes, differences) if len(differences) == len(MAPS) else None
