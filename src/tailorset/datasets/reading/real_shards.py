"""Shards of real images, each with a table of its rows: what an interrupted run has finished is not made again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tailorset.datasets import Dataset
from tailorset.images.codec import decode_image
from tailorset.progress import Bar
from tailorset.records import NOT_ANNOTATED, RealSample, Rejected, Split
from tailorset.storage.location import whole_file
from tailorset.storage.shards import sha256, write_shard


@dataclass(frozen=True)
class ShardJob:
    """A shard to be written: samples `start` to `start + size` of a split."""

    split: Split
    start: int
    size: int
    name: str

    @property
    def file_name(self) -> str:
        return f"{self.name}.tar"


def plan_shards(sizes: Mapping[Split, int], shard_size: int) -> list[ShardJob]:
    """Cut every split into shards of `shard_size` images; the last one of a split may be smaller."""
    return [
        ShardJob(split, start, min(shard_size, size - start), f"{split}-{start // shard_size:05d}")
        for split, size in sizes.items()
        for start in range(0, size, shard_size)
    ]


def finish_shards(
    dataset: Dataset, jobs: Sequence[ShardJob], names: Sequence[str], work_dir: Path
) -> Iterator[pd.DataFrame]:
    """Write the shards below `work_dir`/shards and yield the rows of each."""
    with Bar(total=sum(job.size for job in jobs), unit="image", is_whole=True) as progress:
        for job in jobs:
            tar, rows_path = work_dir / "shards" / job.file_name, work_dir / "rows" / f"{job.name}.parquet"
            if not (rows_path.exists() and tar.exists()):
                _make_shard(dataset, job, names, tar, rows_path)
            progress.update(job.size)
            with rows_path.open("rb") as rows:
                yield pd.read_parquet(rows)


def _make_shard(dataset: Dataset, job: ShardJob, names: Sequence[str], tar: Path, rows_path: Path) -> None:
    """Write one shard, then its rows: if there are rows, the shard is complete."""
    samples = list(islice(dataset.samples(job.split, job.start), job.size))
    if len(samples) != job.size:
        raise ValueError(
            f"{job.split} ended after {job.start + len(samples)} of {dataset.sizes[job.split]} images:"
            " correct `sizes` of the data set plug-in"
        )
    readable = [sample for sample in samples if isinstance(sample, RealSample)]
    write_shard(tar, ((sample.image_id, sample.png) for sample in readable))
    rows = pd.DataFrame([_row(sample, job, names) for sample in samples])
    with whole_file(rows_path) as file:
        rows.to_parquet(file, index=False)


def _row(sample: RealSample | Rejected, job: ShardJob, names: Sequence[str]) -> dict[str, Any]:
    """The image's manifest row and its targets in label-space order, or the reason why there is none."""
    if isinstance(sample, Rejected):
        return {"image_id": sample.image_id, "split": job.split, "reason": sample.reason}
    pixels = np.asarray(decode_image(sample.png)) / 255  # (H, W, 3) in [0, 1]
    return {
        "image_id": sample.image_id,
        "split": job.split,
        "shard": job.file_name,
        "sha256": sha256(sample.png),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "pixel_mean": float(pixels.mean()),
        "pixel_std": float(pixels.std()),
        "targets": np.array([sample.targets.get(name, NOT_ANNOTATED) for name in names], dtype=np.int8),
        "reason": "",
    }
