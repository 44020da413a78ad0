"""Decides with the stored CLIP scores which generated images are kept, and with which labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from tailorset.filters import Decision, Filter
from tailorset.project.layout import FILTERED, SYNTHETIC
from tailorset.project.stage import run_stage
from tailorset.records import FILTERED_COLUMNS
from tailorset.storage.files import atomic_output


def main() -> None:
    with run_stage("filter_images") as stage:
        settings = stage.params.filter_images
        rule: Filter = settings.build(stage.label_space)

        candidates = pd.read_parquet(SYNTHETIC / "manifest.parquet")
        requested = [tuple(labels) for labels in candidates["labels"]]
        decisions = rule.decide(stacked(candidates["discriminator_logits"]), requested)
        verdicts = rule.decide(stacked(candidates["judge_logits"]), requested)

        with atomic_output(FILTERED) as folder:
            folder.mkdir()
            filtered_manifest(candidates, decisions).to_parquet(folder / "manifest.parquet", index=False)

        labels = label_table(stage.label_space.unseen, requested, decisions, verdicts)
        labels.to_csv(stage.plots_dir / "labels.csv", index=False)
        reason_table(decisions).to_csv(stage.plots_dir / "reasons.csv", index=False)
        stage.save_metrics(summary(labels, decisions, verdicts))


def stacked(logits: pd.Series) -> torch.Tensor:
    """(N, U) out of N lists."""
    return torch.from_numpy(np.stack(logits.to_list()))


def filtered_manifest(candidates: pd.DataFrame, decisions: Sequence[Decision]) -> pd.DataFrame:
    """Every candidate with what became of it."""
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
    decisions: Sequence[Decision],
    verdicts: Sequence[Decision],
) -> pd.DataFrame:
    """One row per unseen label: candidates asked to show it, how many of them passed, how many of these the
    judge confirms, and all kept images that carry the label (extras and parents included)."""
    rows = []
    for label in unseen:
        asked = [(d, v) for labels, d, v in zip(requested, decisions, verdicts, strict=True) if label in labels]
        passed = [verdict for decision, verdict in asked if decision.kept]
        carriers = sum(label in decision.labels for decision in decisions)
        rows.append((label, len(asked), len(passed), sum(verdict.kept for verdict in passed), carriers))
    return pd.DataFrame(rows, columns=["label", "requested", "passed", "confirmed_by_judge", "kept"])


def reason_table(decisions: Sequence[Decision]) -> pd.DataFrame:
    """How often each reason was given, most frequent first."""
    reasons = pd.Series([decision.reason for decision in decisions], name="reason")
    return reasons.value_counts().rename_axis("reason").reset_index(name="num_images")


def summary(labels: pd.DataFrame, decisions: Sequence[Decision], verdicts: Sequence[Decision]) -> dict[str, float]:
    """Counts and rates; a rate of nothing (a label never asked for, no image kept) is left out."""
    kept = [verdict for decision, verdict in zip(decisions, verdicts, strict=True) if decision.kept]
    metrics: dict[str, float] = {"filter/candidates": len(decisions), "filter/kept": len(kept)}
    if kept:
        metrics["filter/judge_precision"] = sum(verdict.kept for verdict in kept) / len(kept)
    for row in labels.itertuples():
        metrics[f"filter/kept_per_label/{row.label}"] = int(row.kept)
        if row.requested:
            metrics[f"filter/pass_rate/{row.label}"] = row.passed / row.requested
    return metrics


if __name__ == "__main__":
    main()
