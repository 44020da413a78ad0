"""Targets, counts and example sheets of the real images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tailorset.datasets import Dataset
from tailorset.images.sheets import contact_sheet
from tailorset.messages import some
from tailorset.records import LabelSpace

NUM_EXAMPLES = 24  # on each sheet


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


def check_measurable(splits: pd.Series, targets: pd.DataFrame, label_space: LabelSpace) -> None:
    """Check that val and test, where they are annotated, show what is to be measured on them.

    Raises:
        ValueError: none of their images shows an unseen label.
    """
    unseen = list(label_space.unseen)
    for split in ("val", "test"):
        rows = targets[splits == split].drop(columns="image_id")
        is_used = rows.eq(1) if split == "val" else rows.ge(0)  # a val that shows nothing is not used
        if is_used.any(axis=None) and not rows[unseen].eq(1).any(axis=None):
            raise ValueError(
                f"none of {len(rows)} {split} images shows an unseen label ({some(unseen)}), so nothing can be"
                f" measured on them: raise prepare_dataset.num_{split} where there is one, or annotate more images"
            )


def plot_sheets(dataset: Dataset, folder: Path) -> Iterator[Path]:
    """Write one picture per sheet of examples that the data set offers."""
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
