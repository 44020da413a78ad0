"""The stage tune_unet: its products, the ablation, and kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from tailorset.records import LabelSpace, Prompt, prompt_id
from tailorset.storage.files import read_metrics
from tailorset.tuning.unet_tuner import UnetTuner
from tests.classifier_project import ROOT, run, write_classifier_project

ADAPTER, REPORT = Path("models/unet_lora"), Path("reports/tune_unet")
WEIGHTS = ADAPTER / "pytorch_lora_weights.safetensors"
SETTINGS = {"num_updates": 12, "batch_size": 2, "lora_rank": 2, "checkpoint_every": 2}


@pytest.fixture
def unet_project(project: Path, tiny_clip_folder: Path, tiny_diffusion_folder: Path) -> Path:
    """A project with prompts, annotated photos and a tiny random generator."""
    write_classifier_project(tiny_clip_folder)
    change_params(tune_unet=SETTINGS, generator={"model": str(tiny_diffusion_folder), "image_px": 8})
    prompts = [
        Prompt(prompt_id=prompt_id(labels, 0), text=" next to ".join(labels), labels=labels, origin="llm", attempt=1)
        for labels in LabelSpace.load("data/labels/small.yaml").pairs()
    ]
    Path("data/prompts").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([p.model_dump() for p in prompts]), "data/prompts/prompts.parquet")
    return project


def change_params(**blocks: Mapping[str, Any]) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    for block, settings in blocks.items():
        params[block] |= settings
    Path("params.yaml").write_text(yaml.safe_dump(params))


def test_the_stage_reports_what_it_changed(unet_project: Path) -> None:
    run("tune_unet")
    metrics = read_metrics(REPORT / "metrics.json")
    targets = pd.read_parquet("data/real/targets.parquet")
    train = targets[targets["image_id"].str.startswith("train")]
    assert metrics["unet/photos"] == (train[["tree", "ball"]] == 1).any(axis=1).sum() < len(train)
    assert metrics["unet/updates"] == 12
    losses = pd.read_csv(REPORT / "plots" / "loss.csv")
    assert losses["update"].tolist() == list(range(12))
    assert metrics["unet/loss"] == pytest.approx(losses["loss"].mean())
    assert json.loads((ADAPTER / "tuning.json").read_text()) == {"num_updates": 12}
    assert Image.open(REPORT / "plots" / "look.png").width > 7 * 88


def test_after_kill_9_the_run_ends_as_if_nothing_had_happened(
    unet_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(ROOT / "pipeline/tune_unet.py")]
    process, deadline = subprocess.Popen(command, env=environment), time.monotonic() + 500
    while not list(unet_project.glob(".work/tune_unet/*/adapter.safetensors")):
        assert process.poll() is None, "the stage ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not ADAPTER.exists()
    made, update = [], UnetTuner._update
    monkeypatch.setattr(UnetTuner, "_update", lambda tuner, number: made.append(number) or update(tuner, number))
    run("tune_unet")
    assert made == list(range(made[0], 12))
    assert made[0] >= 2  # what the last checkpoint has is not made again
    made.clear()
    products = [WEIGHTS, REPORT / "metrics.json", REPORT / "plots" / "loss.csv"]
    resumed = [path.read_bytes() for path in products]
    run("tune_unet")
    assert [path.read_bytes() for path in products] == resumed


def test_without_updates_no_model_is_loaded_and_nothing_changes(unet_project: Path) -> None:
    change_params(tune_unet={"num_updates": 0}, generator={"model": "nowhere"})
    run("tune_unet")
    assert {path.name for path in ADAPTER.iterdir()} == {"tuning.json", "SHA256SUMS"}
    assert read_metrics(REPORT / "metrics.json") == {"unet/updates": 0}
    assert pd.read_csv(REPORT / "plots" / "loss.csv").empty


def test_photos_without_a_seen_label_are_refused(unet_project: Path) -> None:
    path = Path("data/real/targets.parquet")
    pd.read_parquet(path).assign(tree=0, ball=0).to_parquet(path)
    with pytest.raises(ValueError, match=r"set tune_unet\.num_updates to 0"):
        run("tune_unet")
    assert not ADAPTER.exists()
