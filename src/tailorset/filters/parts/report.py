"""Decisions of a filter on all candidates, and their tables: manifest, outcomes per label, reasons, and metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from tailorset.filters import Filter, FilterDecision
from tailorset.records import COPIES, FILTERED_COLUMNS
from tailorset.records.verdicts import COPY, KEPT, RELABELLED, STRUCK, ImageVerdict


class Outcome(NamedTuple):
    """For each candidate: the requested labels, the decision, and the decision by the judge's scores."""

    requested: list[tuple[str, ...]]
    decisions: list[FilterDecision]
    verdicts: list[FilterDecision]


def decide_all(rule: Filter, candidates: pd.DataFrame, reviewed: Mapping[str, ImageVerdict] | None = None) -> Outcome:
    """Decide on the rows of a synthetic manifest; copies of the photos that images start from are never kept.

    reviewed: verdicts of a person on some of the images, which replace the rule's decisions.
    """
    requested = [tuple(labels) for labels in candidates["labels"]]
    by_discriminator, by_judge = (_stacked(candidates[f"{role}_logits"]) for role in ("discriminator", "judge"))
    decisions = rule.decide(by_discriminator, requested)
    if reviewed:
        pairs = zip(decisions, candidates["image_id"], strict=True)
        decisions = [after_review(one, reviewed.get(image_id)) for one, image_id in pairs]
    if COPIES in candidates:
        pairs = zip(decisions, candidates[COPIES], strict=True)
        decisions = [FilterDecision(False, (), COPY, one.confidence) if copies else one for one, copies in pairs]
    return Outcome(requested, decisions, rule.decide(by_judge, requested))


def after_review(decision: FilterDecision, verdict: ImageVerdict | None) -> FilterDecision:
    """Return the decision after a person's verdict, if there is one; the confidence is still the rule's."""
    if verdict is None or (decision.kept and set(verdict.labels) == set(decision.labels)):
        return decision
    if not verdict.labels:
        return FilterDecision(False, (), STRUCK, decision.confidence)
    return FilterDecision(True, verdict.labels, RELABELLED, decision.confidence)


def _stacked(logits: pd.Series) -> torch.Tensor:
    """(N, U) out of N lists."""
    return torch.from_numpy(np.stack(logits.to_list()))


def filtered_manifest(
    candidates: pd.DataFrame, decisions: Sequence[FilterDecision], reviewed: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """Return every candidate with its decision; reviewed: image_id -> the labels that a person judged."""
    filtered = candidates[["image_id", "shard", "sha256", "prompt"]].assign(
        kept=[decision.kept for decision in decisions],
        labels=[list(decision.labels) for decision in decisions],
        reason=[decision.reason for decision in decisions],
        confidence=[decision.confidence for decision in decisions],
        reviewed=[list((reviewed or {}).get(image_id, ())) for image_id in candidates["image_id"]],
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
    asked, passed, confirmed, carriers = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for labels, decision, verdict in zip(requested, decisions, verdicts, strict=True):
        shown = set(labels) & set(decision.labels)
        asked.update(set(labels))
        passed.update(shown)
        confirmed.update(shown if verdict.kept else ())
        carriers.update(set(decision.labels))
    rows = [(label, *(counts[label] for counts in (asked, passed, confirmed, carriers))) for label in unseen]
    return pd.DataFrame(rows, columns=["label", "requested", "passed", "confirmed_by_judge", "kept"])


def reason_table(decisions: Sequence[FilterDecision]) -> pd.DataFrame:
    """Return the number of images per reason, most frequent first."""
    reasons = pd.Series([decision.reason for decision in decisions], name="reason")
    return reasons.value_counts().rename_axis("reason").reset_index(name="num_images")


def review_metrics(decisions: Sequence[FilterDecision], outdated: Mapping[str, int]) -> dict[str, float]:
    """Return counts of verdicts by a person; outdated: those on images that no longer exist, by reason."""
    reasons = [decision.reason for decision in decisions]
    figures: dict[str, float] = {"filter/struck": reasons.count(STRUCK), "filter/relabelled": reasons.count(RELABELLED)}
    return figures | {f"filter/verdicts_{reason}": number for reason, number in outdated.items()}


def added_metrics(labels: pd.DataFrame, decisions: Sequence[FilterDecision]) -> dict[str, float]:
    """Return counts of images that were drawn for added labels; labels: rows of `label_table` of these."""
    reasons = {row.reason: int(row.num_images) for row in reason_table(decisions).itertuples()}
    kept = reasons.pop(KEPT, 0)
    figures: dict[str, float] = {"added/drawn": len(decisions), "added/kept": kept}
    figures |= {f"added/rejected/{reason}": number for reason, number in reasons.items()}
    return figures | {f"added/kept_per_label/{row.label}": int(row.kept) for row in labels.itertuples()}


def too_few(labels: pd.DataFrame, decisions: Sequence[FilterDecision], least: int) -> str:
    """Return why a label cannot be learned from what was kept of it; "" if all can. labels: as `label_table` returns.

    least: images that a label needs, at least 1.
    """
    least = max(1, least)
    rejected = reason_table([decision for decision in decisions if not decision.kept])
    causes = [f"{row.reason}: {row.num_images}" for row in rejected.itertuples()]
    for row in labels[labels["kept"] < least].itertuples():
        return (
            f"only {row.kept} of {row.requested} images of {row.label} were kept, and {least} or more are needed"
            f" (validate_data.min_images_per_label, at least 1); rejected: {', '.join(causes) or 'none'}"
        )
    return ""


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
