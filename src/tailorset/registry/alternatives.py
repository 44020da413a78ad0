"""Measured runs beside the one of params.yaml: what they differ in, and what that changed in mAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tailorset.evaluation.alternative import Alternative
from tailorset.evaluation.bootstrap import Estimate, Interval, difference, draw_resamples, interval_or_value
from tailorset.evaluation.results import MAPS
from tailorset.project.tracking import connect, is_set_up, run_params
from tailorset.registry.comparison import NUM_RESAMPLES, executions


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
    resamples = draw_resamples(1, len(present.scores.image_ids), NUM_RESAMPLES, seed=0)
    before = present.scores.estimates(list(MAPS), resamples)
    found = []
    for one in known:
        is_other = one.params.keys() == wanted.keys() and one.params != wanted
        if is_other and one.scores is not None and one.scores.is_like(present.scores):
            pairs = zip(one.scores.estimates(list(MAPS), resamples), before, strict=True)
            changes = {key: value for key, value in one.params.items() if value != wanted[key]}
            found.append(_alternative(one.name, changes, [difference(*pair) for pair in pairs]))
    return [one for one in found if one is not None]


def _alternative(name: str, changes: Mapping[str, str], changed: Sequence[Estimate]) -> Alternative | None:
    """Return a run with the intervals of its `changed` mAPs; None if the photos are too few for one."""
    intervals = [interval_or_value(estimate.value, estimate.replicates) for estimate in changed]
    differences = {
        title: interval
        for title, interval in zip(MAPS.values(), intervals, strict=True)
        if isinstance(interval, Interval)
    }
    return Alternative(name, changes, differences) if len(differences) == len(MAPS) else None
