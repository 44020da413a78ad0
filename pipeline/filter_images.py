"""Decide with the stored CLIP scores which generated images are kept, and with which labels."""

from __future__ import annotations

import pandas as pd

from tailorset.filters.parts.report import decide_all, filtered_manifest, label_table, metrics, reason_table
from tailorset.project.layout import FILTERED, SYNTHETIC
from tailorset.project.stage import run_stage
from tailorset.storage.files import atomic_output


def main() -> None:
    with run_stage("filter_images") as stage:
        candidates = pd.read_parquet(SYNTHETIC / "manifest.parquet")
        requested, decisions, verdicts = decide_all(stage.params.filter_images.build(stage.label_space), candidates)

        with atomic_output(FILTERED) as folder:
            folder.mkdir()
            filtered_manifest(candidates, decisions).to_parquet(folder / "manifest.parquet", index=False)

        labels = label_table(stage.label_space.unseen, requested, decisions, verdicts)
        labels.to_csv(stage.plots_dir / "labels.csv", index=False)
        reason_table(decisions).to_csv(stage.plots_dir / "reasons.csv", index=False)
        stage.save_metrics(metrics(labels, decisions, verdicts))


if __name__ == "__main__":
    main()
