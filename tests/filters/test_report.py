"""The report on a filter's decisions."""

from __future__ import annotations

from tailorset.filters import FilterDecision
from tailorset.filters.parts.report import label_table, too_few
from tailorset.records.verdicts import KEPT, RELABELLED, STRUCK


def test_only_rejections_are_causes_of_too_few_images() -> None:
    decisions = [
        FilterDecision(True, ("cup",), KEPT, 0.9),
        FilterDecision(True, ("cup",), RELABELLED, 0.2),
        FilterDecision(False, (), STRUCK, 0.8),
        FilterDecision(False, (), "cup below 0.5", 0.4),
        FilterDecision(False, (), "cup below 0.5", 0.3),
    ]
    labels = label_table(["cup"], [("cup",)] * 5, decisions, decisions)
    assert too_few(labels, decisions, least=2) == ""
    assert too_few(labels, decisions, least=3) == (
        "only 2 of 5 images of cup were kept, and 3 or more are needed"
        " (validate_data.min_images_per_label, at least 1); rejected: cup below 0.5: 2, struck out in review: 1"
    )
