"""Writes the real images of a data set plug-in as shards, with their manifest and targets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tailorset.datasets import Dataset
from tailorset.datasets.reading.changes import remember_state, state_of
from tailorset.images.codec import decode_image
from tailorset.images.sheets import contact_sheet
from tailorset.plugins import load_plugin
from tailorset.progress import Bar
from tailorset.project.layout import REAL
from tailorset.project.stage import run_stage
from tailorset.records import MIN_PIXEL_STD, NOT_ANNOTATED, REAL_COLUMNS, LabelSpace, RealSample, Rejected, Split
from tailorset.storage.files import atomic_output, write_json
from tailorset.storage.location import place_shards, whole_file
from tailorset.storage.shards import sha256, write_shard

PREPARED = Path("data/prepared.json")  # the same whatever was read: stages that take hours wait for it, none goes stale
NUM_EXAMPLES = 24  # on each sheet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardJob:
    """A shard to be written: samples `start` to `start + size` of a split."""

    split: Split
    start: int
    size: int
    name: str


def main() -> None:
    with run_stage("prepare_dataset") as stage:
        settings = stage.params.prepare_dataset
        plugin = load_plugin("datasets", settings.name)
        dataset: Dataset = plugin.build(settings.config, stage.label_space, stage.params.seed)
        for note in dataset.notes:
            log.info("%s", note)

        state = state_of(settings.config)
        work_dir = stage.shard_folder / state  # what an interrupted run made of other files is no use
        jobs = plan_shards(dataset.sizes, settings.shard_size)
        tables = list(finish_shards(dataset, jobs, stage.label_space.names, work_dir))
        table, rejected = without_rejected(pd.concat(tables, ignore_index=True))
        tell_rejected(rejected, stage.plots_dir / "rejected.csv")
        targets = targets_table(table, stage.label_space.names)

        with atomic_output(REAL) as folder:
            folder.mkdir()
            table[list(REAL_COLUMNS)].to_parquet(folder / "manifest.parquet", index=False)
            targets.to_parquet(folder / "targets.parquet", index=False)
            place_shards(work_dir / "shards", [f"{job.name}.tar" for job in jobs], folder)

        remember_state(stage.root, stage.tracker.params, REAL, state)
        write_json(PREPARED, {"prepared": True})

        counts = label_counts(table["split"], targets, stage.label_space)
        counts.to_csv(stage.plots_dir / "label_counts.csv", index=False)
        for path in plot_sheets(dataset, stage.plots_dir):
            stage.log_figure(path)
        stage.save_metrics(summary(table["split"], counts) | {"real/num_rejected": len(rejected)})


def plan_shards(sizes: Mapping[Split, int], shard_size: int) -> list[ShardJob]:
    """Every split cut into shards of `shard_size` images; the last one of a split may be smaller."""
    return [
        ShardJob(split, start, min(shard_size, size - start), f"{split}-{start // shard_size:05d}")
        for split, size in sizes.items()
        for start in range(0, size, shard_size)
    ]


def finish_shards(
    dataset: Dataset, jobs: Sequence[ShardJob], names: Sequence[str], work_dir: Path
) -> Iterator[pd.DataFrame]:
    """Yields the rows of every shard; what an interrupted run has finished is not made again."""
    with Bar(total=sum(job.size for job in jobs), unit="image", is_whole=True) as progress:
        for job in jobs:
            tar, rows_path = work_dir / "shards" / f"{job.name}.tar", work_dir / "rows" / f"{job.name}.parquet"
            if not (rows_path.exists() and tar.exists()):
                make_shard(dataset, job, names, tar, rows_path)
            progress.update(job.size)
            with rows_path.open("rb") as rows:
                yield pd.read_parquet(rows)


def make_shard(dataset: Dataset, job: ShardJob, names: Sequence[str], tar: Path, rows_path: Path) -> None:
    """Writes one shard, then its rows: where there are rows, the shard is complete."""
    samples = list(islice(dataset.samples(job.split, job.start), job.size))
    if len(samples) != job.size:
        raise ValueError(
            f"{job.split} ended after {job.start + len(samples)} of {dataset.sizes[job.split]} images:"
            " correct `sizes` of the data set plug-in"
        )
    readable = [sample for sample in samples if isinstance(sample, RealSample)]
    write_shard(tar, ((sample.image_id, sample.png) for sample in readable))
    rows = pd.DataFrame([table_row(sample, job, names) for sample in samples])
    with whole_file(rows_path) as file:
        rows.to_parquet(file, index=False)


def table_row(sample: RealSample | Rejected, job: ShardJob, names: Sequence[str]) -> dict[str, Any]:
    """The image's manifest row and its targets in label-space order, or why there is none."""
    if isinstance(sample, Rejected):
        return {"image_id": sample.image_id, "split": job.split, "reason": sample.reason}
    pixels = np.asarray(decode_image(sample.png)) / 255  # (H, W, 3) in [0, 1]
    return {
        "image_id": sample.image_id,
        "split": job.split,
        "shard": f"{job.name}.tar",
        "sha256": sha256(sample.png),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "pixel_mean": float(pixels.mean()),
        "pixel_std": float(pixels.std()),
        "targets": np.array([sample.targets.get(name, NOT_ANNOTATED) for name in names], dtype=np.int8),
        "reason": "",
    }


def without_rejected(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of usable images, and image_id, split and reason of the others.

    Of equal images in several splits the one in test stays, else the one in val: nothing is measured on what was
    learned.

    Raises:
        ValueError: a split has no usable image.
    """
    table = table.copy()
    table.loc[table["reason"].eq("") & (table["pixel_std"] < MIN_PIXEL_STD), "reason"] = "black or constant"
    usable = table[table["reason"] == ""]
    rank = usable["split"].map(["test", "val", "train"].index)
    best = rank.groupby(usable["sha256"]).transform("min")
    table.loc[rank.index[rank > best], "reason"] = "the same pixels as an image of val or test"
    is_rejected = table["reason"] != ""
    usable, rejected = table[~is_rejected].reset_index(drop=True), table[is_rejected]
    for split in table["split"].unique():
        if not (usable["split"] == split).any():
            first = rejected.loc[rejected["split"] == split, "reason"].iloc[0]
            raise ValueError(f"no {split} image can be used, the first one because: {first}")
    sizes = usable[["width", "height"]].astype("int64")  # rejected rows made them floats
    return usable.assign(**sizes), rejected[["image_id", "split", "reason"]]


def tell_rejected(rejected: pd.DataFrame, path: Path) -> None:
    """Nothing is left out in silence: how many images in the log, which and why in a file."""
    rejected.to_csv(path, index=False)
    if len(rejected):
        log.warning("%d images were left out; %s says which and why", len(rejected), path)


def targets_table(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """image_id and one int8 column per label: 1 present, 0 absent, -1 not annotated."""
    targets = pd.DataFrame(np.stack(table["targets"].to_list()), columns=list(names))
    targets.insert(0, "image_id", table["image_id"])
    return targets


def label_counts(splits: pd.Series, targets: pd.DataFrame, label_space: LabelSpace) -> pd.DataFrame:
    """One row per label: seen or not, and the number of images that show it in each split."""
    present = targets[list(label_space.names)].eq(1)
    counts = present.groupby(splits, sort=False).sum().T
    counts.insert(0, "seen", [label.seen for label in label_space.labels])
    return counts.rename_axis(index="label", columns=None).reset_index()


def plot_sheets(dataset: Dataset, folder: Path) -> Iterator[Path]:
    """Writes one picture per sheet of examples that the data set offers."""
    for name, examples in dataset.sheets(NUM_EXAMPLES).items():
        images, captions = zip(*examples, strict=True)
        path = folder / f"{name}.png"
        contact_sheet(images, captions, columns=6, scale=2).save(path)
        yield path


def summary(splits: pd.Series, counts: pd.DataFrame) -> dict[str, float]:
    """Per split: images, labels that occur, labels per image."""
    metrics: dict[str, float] = {"real/num_images": len(splits)}
    for split, size in splits.value_counts(sort=False).items():
        metrics[f"real/{split}/num_images"] = int(size)
        metrics[f"real/{split}/num_labels"] = int((counts[split] > 0).sum())
        metrics[f"real/{split}/labels_per_image"] = float(counts[split].sum() / size)
    return metrics


if __name__ == "__main__":
    main()
