"""Rules on the photos and their targets: splits do not overlap, and nothing is annotated that must stay unseen.

Shapes: N rows, L labels.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tailorset.records import MIN_PIXEL_STD, NOT_ANNOTATED, SPLITS, LabelSpace
from tailorset.validation.rules import DataRule, Table, between, blank, listed, named, unique, where


def photo_table(real: pd.DataFrame, targets: pd.DataFrame, label_space: LabelSpace) -> Table:
    frame = real[["image_id", "split", "sha256", "width", "height"]].assign(
        row=real["image_id"],
        pixel_std=real["pixel_std"].fillna(-1.0),
        pixel_mean=real["pixel_mean"].fillna(-1.0),
        splits_of_id=_other_splits(real, "image_id"),
        splits_of_bytes=_other_splits(real, "sha256"),
        no_targets=where(~real["image_id"].isin(targets["image_id"]), "no row in targets.parquet"),
    )
    needed = SPLITS if label_space.seen else ("val", "test")  # nothing to learn from photos without a seen label
    splits = {"column": "split", "value_set": list(needed)}
    overlap = "correct the split in the data set plug-in: an image may be in one split only"
    drop = "leave these images out in the data set plug-in"
    rewrite = "run prepare_dataset again"
    return Table(
        "real_images",
        frame,
        [
            unique("image ids differ", "image_id", overlap),
            DataRule("every split has images", "ExpectColumnDistinctValuesToEqualSet", splits, rewrite),
            blank("splits share no image id", "splits_of_id", overlap),
            blank("splits share no image bytes", "splits_of_bytes", overlap),
            unique("images differ", "sha256", drop, "warning"),
            blank("every image has targets", "no_targets", rewrite),
            between("images have a width", "width", 1, None, rewrite),
            between("images have a height", "height", 1, None, rewrite),
            between("mean brightness is a number in [0, 1]", "pixel_mean", 0, 1, rewrite),
            between("no image is black or constant", "pixel_std", MIN_PIXEL_STD, 1, drop),
        ],
    )


def target_table(real: pd.DataFrame, targets: pd.DataFrame, label_space: LabelSpace, annotated_unseen: bool) -> Table:
    split = targets["image_id"].map(real.drop_duplicates("image_id").set_index("image_id")["split"])
    train = split.eq("train").to_numpy()[:, None]  # (N, 1)
    values = targets[list(label_space.names)].to_numpy()  # (N, L)
    unseen = np.array([not label.seen for label in label_space.labels])  # (L,)
    annotated = values != NOT_ANNOTATED
    is_measured = annotated.any() or bool(label_space.seen)  # else photos are only looked at
    frame = targets[["image_id"]].assign(
        row=targets["image_id"],
        stranger=where(split.isna(), "no image in manifest.parquet"),
        leaked=named(annotated & train & unseen, label_space.names),
        unknown=named(~np.isin(values, (0, 1, NOT_ANNOTATED)), label_space.names),
        incomplete=named(~annotated & ~train & is_measured, label_space.names),
        unused=where(~annotated.any(axis=1) & is_measured, "no label is annotated"),
    )
    rewrite = "run prepare_dataset again"
    return Table(
        "label_matrix",
        frame,
        [
            unique("each image has one row", "image_id", rewrite),
            blank("each row has its image", "stranger", rewrite),
            blank(
                "train images are not annotated for unseen labels",
                "leaked",
                "let the data set plug-in give targets "
                "of train images for seen labels only; to measure full supervision, set validate_data.annotated_unseen",
                "warning" if annotated_unseen else "critical",
            ),
            blank("targets are 1, 0 or -1", "unknown", rewrite),
            blank(
                "val and test images are annotated for all labels",
                "incomplete",
                "leave these images out in the data set plug-in: evaluation needs the whole truth",
            ),
            blank("every image is annotated", "unused", "leave these images out in the data set plug-in", "warning"),
        ],
    )


def _other_splits(real: pd.DataFrame, column: str) -> pd.Series:
    """(N,) the splits that share a row's value of a column, "" if there is only one."""
    shared = real.groupby(column)["split"].agg(lambda splits: listed(set(splits)) if splits.nunique() > 1 else "")
    return real[column].map(shared)
