"""Images that are left out: unreadable, constant, or equal to an image of a split that measures."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from tailorset.messages import count
from tailorset.records import MIN_PIXEL_STD

log = logging.getLogger(__name__)


def without_rejected(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of usable images, and image_id, split and reason of the rest.

    Of equal images in several splits the one in test stays, else the one in val: nothing is measured on what was
    learned.

    Raises:
        ValueError: a split has no usable image.
    """
    _check_usable(table)  # rows that are all rejected have no pixels to look at
    table = table.copy()
    table.loc[table["reason"].eq("") & (table["pixel_std"] < MIN_PIXEL_STD), "reason"] = "black or constant"
    usable = table[table["reason"] == ""]
    rank = usable["split"].map(["test", "val", "train"].index)
    best = rank.groupby(usable["sha256"]).transform("min")
    table.loc[rank.index[rank > best], "reason"] = "the same pixels as an image of val or test"
    _check_usable(table)
    is_rejected = table["reason"] != ""
    usable, rejected = table[~is_rejected].reset_index(drop=True), table[is_rejected]
    sizes = usable[["width", "height"]].astype("int64")  # rejected rows made them floats
    return usable.assign(**sizes), rejected[["image_id", "split", "reason"]]


def _check_usable(table: pd.DataFrame) -> None:
    for split, reasons in table.groupby("split", sort=False)["reason"]:
        if reasons.ne("").all():
            raise ValueError(f"no {split} image can be used, the first one because: {reasons.iloc[0]}")


def report_rejected(rejected: pd.DataFrame, path: Path) -> None:
    """Log the number of images that were left out, and write which and why to a file."""
    rejected.to_csv(path, index=False)
    if len(rejected):
        log.warning("%s left out; %s lists them with reasons", count(len(rejected), "image"), path)
