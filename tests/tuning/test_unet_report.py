"""The report on tuning the UNet: figures of known pictures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from tailorset.tuning.unet_report import LookPictures, save_look, save_losses, unet_metrics
from tailorset.tuning.unet_tuner import UnetUpdate

COLOURS = ((0.2, 0.4, 0.6), (0.8, 0.4, 0.6), (0.2, 0.4, 0.3))
PICTURES = LookPictures(*(torch.tensor(colour).view(1, 3, 1, 1).expand(2, 3, 8, 8) for colour in COLOURS))
HISTORY = [UnetUpdate(number, float(number)) for number in range(40)]


def test_colours_are_compared_with_those_of_the_photos() -> None:
    metrics = unet_metrics(HISTORY, 7, PICTURES)
    assert metrics["unet/colour_distance/before"] == pytest.approx(0.6 / 3)
    assert metrics["unet/colour_distance/after"] == pytest.approx(0.3 / 3)
    assert metrics["unet/loss"] == pytest.approx(29.5)  # of the last 20 updates
    assert (metrics["unet/photos"], metrics["unet/updates"]) == (7, 40)


def test_the_sheet_has_the_photos_above_the_images_before_and_after(tmp_path: Path) -> None:
    save_look(PICTURES, ["kite", "boat"], tmp_path)
    sheet = Image.open(tmp_path / "look.png").convert("RGB")
    column = [sheet.getpixel((60, y)) for y in range(sheet.height)]
    colours = [(51, 102, 153), (204, 102, 153), (51, 102, 76)]
    places = [column.index(colour) for colour in colours]
    assert places == sorted(places)


def test_losses_are_written_and_drawn_if_there_are_any(tmp_path: Path) -> None:
    save_losses([], tmp_path)
    assert pd.read_csv(tmp_path / "loss.csv").empty
    assert not (tmp_path / "loss.png").exists()
    save_losses(HISTORY, tmp_path)
    assert pd.read_csv(tmp_path / "loss.csv")["loss"].tolist() == [record.loss for record in HISTORY]
    assert Image.open(tmp_path / "loss.png").width > 100
