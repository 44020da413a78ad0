"""Report on tuning the UNet: the loss, and images of the same prompts before and after it, next to photos.

Shapes: M images of each kind, P pixels of a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from tailorset.images.sheets import sheet_of_kinds
from tailorset.tuning.unet_tuner import UnetUpdate

SHEET_COLUMNS, SHEET_TILE_PX = 7, 128
SHEET_PROMPTS = 3 * SHEET_COLUMNS
LAST_UPDATES = 20  # whose mean loss is reported


class LookPictures(NamedTuple):
    """Photos, and images of the same prompts and seeds before and after tuning: (M, 3, P, P) in [0, 1] each."""

    photo: Tensor
    before: Tensor
    after: Tensor


def unet_metrics(history: Sequence[UnetUpdate], num_photos: int, pictures: LookPictures) -> dict[str, float]:
    """Mean loss of the last updates, and how far the mean colour of images is from that of photos, in [0, 1]."""
    last = [record.loss for record in history[-LAST_UPDATES:]]
    return {
        "unet/updates": len(history),
        "unet/photos": num_photos,
        "unet/loss": sum(last) / len(last),
        "unet/colour_distance/before": colour_distance(pictures.before, pictures.photo),
        "unet/colour_distance/after": colour_distance(pictures.after, pictures.photo),
    }


def colour_distance(images: Tensor, photos: Tensor) -> float:
    """Return the mean absolute difference of the three channels' means."""
    return float((images.mean((0, 2, 3)) - photos.mean((0, 2, 3))).abs().mean())


def save_losses(history: Sequence[UnetUpdate], folder: Path) -> None:
    """Write loss.csv and, if there was an update, loss.png: thin as measured and bold as the mean of some updates."""
    table = pd.DataFrame(history, columns=list(UnetUpdate._fields))
    table.to_csv(folder / "loss.csv", index=False)
    if table.empty:
        return
    figure = Figure(figsize=(5, 3), layout="constrained")
    axis = figure.subplots()
    axis.plot(table["update"], table["loss"], color="tab:blue", alpha=0.3)
    axis.plot(table["update"], table["loss"].rolling(LAST_UPDATES, min_periods=1).mean(), color="tab:blue")
    axis.set(xlabel="update", title="loss of the UNet on photos", ylim=(0, None))
    figure.savefig(folder / "loss.png", dpi=100, metadata={"Software": None})


def save_look(pictures: LookPictures, labels: Sequence[str], folder: Path) -> None:
    """Write look.png: rows of photos, then of images before tuning, below them the same prompts and seeds after it.

    labels: what each of the M prompts requests.
    """
    captions = [[kind if kind == "photo" else f"{kind}\n{words}" for words in labels] for kind in pictures._fields]
    sheet_of_kinds(pictures, captions, SHEET_COLUMNS, SHEET_TILE_PX).save(folder / "look.png")
