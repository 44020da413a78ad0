"""Write the real images of a data set plug-in as shards, with their manifest and targets."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from tailorset.datasets import Dataset
from tailorset.datasets.reading.changes import remember_state, state_of
from tailorset.datasets.reading.lending import lend_folder
from tailorset.datasets.reading.real_shards import finish_shards, plan_shards
from tailorset.datasets.reading.rejection import report_rejected, without_rejected
from tailorset.datasets.reading.report import check_measurable, label_counts, plot_sheets, summary, targets_table
from tailorset.project.layout import PREPARED, REAL
from tailorset.project.stage import run_stage
from tailorset.records import REAL_COLUMNS
from tailorset.storage.files import atomic_output, write_json
from tailorset.storage.held_out import held_out_digest
from tailorset.storage.lent import lent_photos
from tailorset.storage.location import place_shards

log = logging.getLogger(__name__)


def main() -> None:
    with run_stage("prepare_dataset") as stage:
        settings, label_space = stage.params.prepare_dataset, stage.label_space
        dataset: Dataset = settings.build(label_space, stage.params.seed)
        for note in dataset.notes:
            log.info("%s", note)

        state = state_of(settings.config, settings)
        work_dir = stage.shard_folder / state  # shards that an interrupted run made of other files are of no use
        jobs = plan_shards(dataset.sizes, settings.shard_size)
        tables = list(finish_shards(dataset, jobs, label_space.names, work_dir))
        table, rejected = without_rejected(pd.concat(tables, ignore_index=True))
        report_rejected(rejected, stage.plots_dir / "rejected.csv")
        targets = targets_table(table, label_space.names)
        check_measurable(table["split"], targets, label_space)

        with atomic_output(REAL) as folder:
            folder.mkdir()
            table[list(REAL_COLUMNS)].to_parquet(folder / "manifest.parquet", index=False)
            targets.to_parquet(folder / "targets.parquet", index=False)
            place_shards(work_dir / "shards", [job.file_name for job in jobs], folder)
            counts_lent = lend_folder(settings.lend_photos, folder) if isinstance(settings.lend_photos, Path) else {}
            used = {"lent_photos": lent_photos(folder).digest} if settings.lend_photos else {}
            if stage.params.generator.config.retrieves_photos:
                used["held_out"] = held_out_digest(folder)

        remember_state(stage.root, stage.tracker.params, REAL, state)
        # The same whatever was read: stages that take hours wait for it, and go stale only if they start from photos,
        # or retrieve some, which must not be like those of val and test.
        write_json(PREPARED, {"prepared": True} | used)

        counts = label_counts(table["split"], targets, label_space)
        counts.to_csv(stage.plots_dir / "label_counts.csv", index=False)
        stage.log_figures(*plot_sheets(dataset, stage.plots_dir))
        stage.save_metrics(summary(table["split"], counts) | {"real/num_rejected": len(rejected)} | counts_lent)


if __name__ == "__main__":
    main()
