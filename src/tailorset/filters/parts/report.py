"""Tables of a filter's decisions: the product's manifest, outcomes per label, reasons, and metrics."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tailorset.filters import FilterDecision
from tailorset.records import FILTERED_COLUMNS


def filtered_manifest(candidates: pd.DataFrame, decisions: Sequence[FilterDecision]) -> pd.DataFrame:
    """Return every candidate with its decision."""
    filtered = candidates[["image_id", "shard", "sha256"]].assign(
        kept=[decision.kept for decision in decisions],
        labels=[list(decision.labels) for decision in decisions],
        reason=[decision.reason for decision in decisions],
        confidence=[decision.confidence for decision in decisions],
    )
    return filtered[list(FILTERED_COLUMNS)]


def label_table(
    unseen: Sequence[str],
    requested: Sequence[tuple[str, ...]],
    decisions: Sequence[FilterDecision],
    verdicts: Sequence[FilterDecision],
) -> pd.DataFrame:
    """Return one row per unseen label.

    Columns: candidates that request it, how many of them passed, how many of these the judge confirms, and all kept
    images that carry the label (extras and parents included). verdicts: decisions by the judge's scores.
    """
    rows = []
    for label in unseen:
        pairs = [(d, v) for labels, d, v in zip(requested, decisions, verdicts, strict=True) if label in labels]
        passed = [verdict for decision, verdict in pairs if decision.kept]
        carriers = sum(label in decision.labels for decision in decisions)
        rows.append((label, len(pairs), len(passed), sum(verdict.kept for verdict in passed), carriers))
    return pd.DataFrame(rows, columns=["label", "requested", "passed", "confirmed_by_judge", "kept"])


def reason_table(decisions: Sequence[FilterDecision]) -> pd.DataFrame:
    """Return the number of images per reason, most frequent first."""
    reasons = pd.Series([decision.reason for decision in decisions], name="reason")
    return reasons.value_counts().rename_axis("reason").reset_index(name="num_images")


def metrics(
    labels: pd.DataFrame, decisions: Sequence[FilterDecision], verdicts: Sequence[FilterDecision]
) -> dict[str, float]:
    """Return counts and rates; a rate of nothing (a label never requested, no image kept) is left out."""
    kept = [verdict for decision, verdict in zip(decisions, verdicts, strict=True) if decision.kept]
    figures: dict[str, float] = {"filter/candidates": len(decisions), "filter/kept": len(kept)}
    if kept:
        figures["filter/judge_precision"] = sum(verdict.kept for verdict in kept) / len(kept)
    for row in labels.itertuples():
        figures[f"filter/kept_per_label/{row.label}"] = int(row.kept)
        if row.requested:
            figures[f"filter/pass_rate/{row.label}"] = row.passed / row.requested
    return figures
