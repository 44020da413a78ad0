"""Labels named as people name them, in every file that a model writes or a stage draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from tiny_backbone import write_backbone
from typer.testing import CliRunner

from tailorset import cli
from tailorset.generation.report import plot_pass_rates
from tailorset.images.sheets import contact_sheet
from tailorset.inference.predictor import load_predictor
from tailorset.plugins import load_plugin
from tailorset.records import LabelSpace
from tailorset.thresholds.rules import LabelRule, Thresholds

NAMES = ("Mum's T-shirt", "茶碗", "Стол", "7-Eleven", "कुत्ता")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    labels = [{"name": name, "seen": False} for name in NAMES]
    space = LabelSpace.model_validate({"name": "people's", "labels": labels})
    plugin = load_plugin("classifiers", "dual_prompt")
    config = plugin.Config(backbone={"model": write_backbone(tmp_path / "backbone", "resnet")}, num_context_tokens=2)
    folder = tmp_path / "models" / "classifier"
    plugin.build(config, space, torch.device("cpu")).save(folder)
    Thresholds(dict.fromkeys(NAMES, LabelRule(1.5, -0.5, 0.0, 0.0, 0.0))).save(folder.parent / "thresholds.json")
    return folder


def test_predictions_of_every_kind_and_the_exported_model_name_them(model: Path, photos: Path, tmp_path: Path) -> None:
    assert load_predictor(model, "cpu").labels == NAMES
    for suffix, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet), (".jsonl", read_lines)):
        output = tmp_path / f"out{suffix}"
        result = CliRunner().invoke(cli.app, ["predict", str(photos), "-o", str(output), "--model", str(model)])
        assert result.exit_code == 0, result.output
        table = read(output)
        assert {f"score/{name}" for name in NAMES} <= set(table.columns)
        assert table[[f"score/{name}" for name in NAMES]].notna().any(axis=None)
    result = CliRunner().invoke(cli.app, ["export", "--model", str(model), "-o", str(tmp_path / "export")])
    assert result.exit_code == 0, result.output
    exported = onnx.load(tmp_path / "export" / "classifier.onnx", load_external_data=False)
    said = {entry.key: entry.value for entry in exported.metadata_props}
    assert list(json.loads(said["thresholds"])) == list(NAMES)


def read_lines(path: Path) -> pd.DataFrame:
    return pd.DataFrame([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])


@pytest.mark.filterwarnings("ignore:Glyph")  # of a script that matplotlib's font lacks: a box is drawn
def test_sheets_and_plots_show_them(tmp_path: Path) -> None:
    images = [np.zeros((8, 8, 3), np.uint8)] * len(NAMES)
    assert contact_sheet(images, NAMES, columns=2).width > 0
    outcome = pd.DataFrame({"label": NAMES, "kept": 1, "drawn": 2, "pass_rate": 0.5, "judge_pass_rate": 0.5})
    plot_pass_rates(outcome, tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 1000
