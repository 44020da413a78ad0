"""Decide with the stored CLIP scores which generated images are kept, and with which labels."""

from __future__ import annotations

import pandas as pd

from tailorset.filters.parts.report import (
    decide_all,
    filtered_manifest,
    label_table,
    metrics,
    reason_table,
    review_metrics,
)
from tailorset.project.layout import FILTERED, REVIEW, SYNTHETIC
from tailorset.project.stage import run_stage
from tailorset.records.verdicts import current_verdicts, read_verdicts
from tailorset.storage.files import atomic_output


def main() -> None:
    with run_stage("filter_images") as stage:
        candidates = pd.read_parquet(SYNTHETIC / "manifest.parquet")
        digests = dict(zip(candidates["image_id"], candidates["sha256"], strict=True))
        stored = read_verdicts(REVIEW)
        reviewed, outdated = current_verdicts(stored, digests, stage.label_space.unseen, REVIEW)
        rule = stage.params.filter_images.build(stage.label_space)
        requested, decisions, verdicts = decide_all(rule, candidates, reviewed)

        with atomic_output(FILTERED) as folder:
            folder.mkdir()
            judged = dict.fromkeys(reviewed, stage.label_space.unseen)
            filtered_manifest(candidates, decisions, judged).to_parquet(folder / "manifest.parquet", index=False)

        labels = label_table(stage.label_space.unseen, requested, decisions, verdicts)
        labels.to_csv(stage.plots_dir / "labels.csv", index=False)
        reason_table(decisions).to_csv(stage.plots_dir / "reasons.csv", index=False)
        figures = metrics(labels, decisions, verdicts)
        stage.save_metrics(figures | review_metrics(decisions, outdated) if stored else figures)


if __name__ == "__main__":
    main()
