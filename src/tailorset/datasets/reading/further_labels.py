"""Photos that were prepared before, with targets of further labels next to those they have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tailorset.datasets import Dataset
from tailorset.progress import Bar
from tailorset.records import NOT_ANNOTATED, RealSample, Split
from tailorset.storage.location import NOTE, shards_of
from tailorset.storage.shards import sha256

MEASURED_SPLITS: tuple[Split, ...] = ("val", "test")


def with_further_labels(real: Path, names: Sequence[str], dataset: Dataset | None, folder: Path) -> None:
    """Write a product of the same photos, with targets of all labels, to `folder`; it notes where their shards are.

    dataset: annotates photos of val and test for labels that `real` has no targets of, if it has the very same photos;
    None = nothing is known of these labels.
    """
    folder.mkdir()
    manifest = pd.read_parquet(real / "manifest.parquet")
    targets = pd.read_parquet(real / "targets.parquet").set_index("image_id")
    missing = [name for name in names if name not in targets]
    for name in missing:
        targets[name] = pd.Series(NOT_ANNOTATED, targets.index, dtype="int8")
    if missing and dataset is not None:
        _annotate(targets, missing, dataset, dict(zip(manifest["image_id"], manifest["sha256"], strict=True)))
    manifest.to_parquet(folder / "manifest.parquet", index=False)
    targets.reset_index().to_parquet(folder / "targets.parquet", index=False)
    (folder / NOTE).write_text(f"{shards_of(real)}\n", encoding="utf-8")


def _annotate(targets: pd.DataFrame, names: Sequence[str], dataset: Dataset, digests: dict[str, str]) -> None:
    total = sum(dataset.sizes[split] for split in MEASURED_SPLITS)
    with Bar(total=total, desc="annotations", unit="image") as bar:
        for sample in (sample for split in MEASURED_SPLITS for sample in dataset.samples(split)):
            bar.update()
            if isinstance(sample, RealSample) and digests.get(sample.image_id) == sha256(sample.png):
                targets.loc[sample.image_id, list(names)] = [sample.targets.get(name, NOT_ANNOTATED) for name in names]
