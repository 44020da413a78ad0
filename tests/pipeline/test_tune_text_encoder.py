"""The stage tune_text_encoder: its products, the ablation, and kill -9."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tailorset.records import LabelSpace, Prompt, prompt_id

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "pipeline" / "tune_text_encoder.py"
REPORT = Path("reports/tune_text_encoder")
LORA = Path("models/text_encoder_lora")
ROLES = ("discriminator", "judge")
SETTINGS = {
    "num_updates": 12,
    "batch_size": 2,
    "num_inference_steps": 2,
    "stop_after": [1, 2],
    "held_out_prompts": 3,
    "checkpoint_every": 2,
    "evaluate_every": 3,
    "patience": 10,
}


@pytest.fixture
def tuning_project(project: Path, tiny_clip_folder: Path, tiny_judge_folder: Path, tiny_diffusion_folder: Path) -> Path:
    """A project with prompts and tiny random models."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["generator"] |= {"model": str(tiny_diffusion_folder), "image_px": 8}
    for role, folder in (("discriminator", tiny_clip_folder), ("judge", tiny_judge_folder)):
        params["clip"][role] = {"model": f"local-dir:{folder}"}
    params["tune_unet"]["num_updates"] = 0
    params["tune_text_encoder"] |= SETTINGS
    Path("params.yaml").write_text(yaml.safe_dump(params))
    prompts = [
        Prompt(prompt_id=prompt_id(labels, i), text=" ".join((colour, *labels)), labels=labels, origin="llm", attempt=1)
        for labels in LabelSpace.load(params["label_space"]).pairs()
        for i, colour in enumerate(("red", "blue"))
    ]
    Path("models/unet_lora").mkdir(parents=True)
    Path("models/unet_lora/tuning.json").write_text('{"num_updates": 0}')
    Path("data/prompts").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([p.model_dump() for p in prompts]), "data/prompts/prompts.parquet")
    return project


def run_stage_script() -> None:
    runpy.run_path(str(SCRIPT), run_name="__main__")


def change_params(**settings: Any) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["tune_text_encoder"] |= settings
    Path("params.yaml").write_text(yaml.safe_dump(params))


def run_and_kill(folder: Path) -> int:
    """Start the stage in its own process and kill -9 it after its second checkpoint; return the finished updates."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, str(SCRIPT)], cwd=folder, env=environment)
    deadline = time.monotonic() + 500
    try:
        while True:
            found = list(folder.glob(".work/tune_text_encoder/*/history.json"))
            if found and len(finished := json.loads(found[0].read_text())["updates"]) >= 4:
                return len(finished)
            assert process.poll() is None, "the stage ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_after_kill_9_the_run_ends_as_if_nothing_had_happened(
    tuning_project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_and_kill(tuning_project) < SETTINGS["num_updates"]
    assert not LORA.exists()
    capfd.readouterr()
    run_stage_script()
    assert "tune_text_encoder:   0%" not in capfd.readouterr().err  # the progress bar starts where the kill was
    # random models accept nothing, before or after: that the best adapter survives is the next test's matter
    products = [LORA / "tuning.json", REPORT / "metrics.json"]
    products += [REPORT / "plots" / name for name in ("curve.csv", "reward_hacking.csv")]
    if json.loads((LORA / "tuning.json").read_text())["num_updates"] == 0:
        products.pop(0)  # the untuned text encoder has the lowest loss: there is no adapter
    resumed = [path.read_bytes() for path in products]
    assert not list(Path(".work/tune_text_encoder").iterdir())
    for folder in (LORA, "reports"):
        shutil.rmtree(folder)
    run_stage_script()
    assert [path.read_bytes() for path in products] == resumed


def test_two_processes_make_the_same_updates(tuning_project: Path) -> None:
    change_params(num_updates=4, batch_size=3)
    run_stage_script()
    curves = [pd.read_csv(REPORT / "plots" / "curve.csv")]
    metrics = [json.loads((REPORT / "metrics.json").read_text())]
    params = yaml.safe_load(Path("params.yaml").read_text()) | {"num_processes": 2}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    answer = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert answer.stderr.count("2 processes share this stage") == 1
    curves.append(pd.read_csv(REPORT / "plots" / "curve.csv"))
    metrics.append(json.loads((REPORT / "metrics.json").read_text()))
    pd.testing.assert_frame_equal(*curves, rtol=1e-3)
    assert metrics[0] == pytest.approx(metrics[1])


def test_the_best_adapter_survives_an_interruption(tuning_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at, brightness = {4}, list[float]()  # in the evaluation after update 12

    def unlike_untuned(tuner: Any, images: torch.Tensor, prompts: Any) -> float:
        """Lower for images that differ more from those of the untuned text encoder."""
        if len(brightness) in interrupt_at:
            raise KeyboardInterrupt
        brightness.append(float(images.mean()))
        return -1000 * abs(brightness[-1] - brightness[0])

    monkeypatch.setattr("tailorset.tuning.tuner.Tuner.held_out_loss", unlike_untuned)
    change_params(learning_rate=0.05, stop_after=None, compare_with="unseen")
    with pytest.raises(KeyboardInterrupt):
        run_stage_script()
    interrupt_at.clear()
    run_stage_script()
    products = [
        LORA / "pytorch_lora_weights.safetensors",
        LORA / "tuning.json",
        REPORT / "plots" / "reward_hacking.csv",
    ]
    resumed = [path.read_bytes() for path in products]
    shutil.rmtree(LORA)
    run_stage_script()
    assert [path.read_bytes() for path in products] == resumed


def test_the_products_of_the_stage(tuning_project: Path) -> None:
    change_params(num_updates=2)
    run_stage_script()
    metrics = json.loads((REPORT / "metrics.json").read_text())
    for when in ("before", "after"):
        for role in ("discriminator", "judge"):
            assert 0 <= metrics[f"acceptance/{when}/{role}"] <= 1
    assert (metrics["tune/updates"], metrics["tune/skipped_updates"]) == (2, 0)
    assert list(pd.read_csv(REPORT / "plots" / "curve.csv").columns) == [
        "update",
        "loss",
        "acceptance",
        "grad_norm",
        "skipped",
    ]
    assert {path.name for path in (REPORT / "plots").glob("*.png")} == {
        "curve.png",
        "before_after.png",
        "reward_hacking.png",
    }
    gains = [metrics[f"acceptance/after/{role}"] - metrics[f"acceptance/before/{role}"] for role in ROLES]
    assert metrics["tune/reward_hacking"] == pytest.approx(gains[0] - gains[1])
    assert json.loads((LORA / "tuning.json").read_text()) == {"num_updates": metrics["tune/kept_update"]}


def stub_losses(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let the evaluations return these losses in turn."""
    remaining = iter(losses)
    monkeypatch.setattr("tailorset.tuning.tuner.Tuner.held_out_loss", lambda *_: next(remaining))


def test_the_best_adapter_is_kept_and_tuning_ends_when_patience_does(
    tuning_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_params(evaluate_every=1, patience=2)
    stub_losses(monkeypatch, [3.0, 2.0, 1.0, 1.0, 2.0])  # updates 0, 1, 2 (best), 3, 4
    shares = iter([0.2, 0.1, 0.3, 0.1, 0.9, 0.1, 0.5, 0.9, 0.6, 0.9])  # the discriminator's, the judge's, in turn
    monkeypatch.setattr("tailorset.tuning.held_out.acceptance", lambda *_: next(shares, 0.5))
    run_stage_script()
    assert json.loads((LORA / "tuning.json").read_text()) == {"num_updates": 2}
    table = pd.read_csv(REPORT / "plots" / "reward_hacking.csv")
    assert list(table["update"]) == [0, 1, 2, 3, 4]
    assert list(table["loss"]) == [3.0, 2.0, 1.0, 1.0, 2.0]
    assert list(table["reward_hacking"]) == pytest.approx([0, 0.1, 0.7, 0.3 - 0.8, 0.4 - 0.8])
    kept = load_file(LORA / "pytorch_lora_weights.safetensors")
    change_params(num_updates=2, evaluate_every=2)
    stub_losses(monkeypatch, [2.0, 1.0])
    run_stage_script()
    again = load_file(LORA / "pytorch_lora_weights.safetensors")
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_an_adapter_that_never_helps_is_not_kept(tuning_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_params(evaluate_every=1, patience=2)
    stub_losses(monkeypatch, [1.0, 2.0, 2.0])
    run_stage_script()
    assert {path.name for path in LORA.iterdir()} == {"tuning.json", "SHA256SUMS"}
    metrics = json.loads((REPORT / "metrics.json").read_text())
    assert (metrics["tune/updates"], metrics["tune/kept_update"]) == (2, 0)


def test_the_adapter_is_finite(tuning_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_params(num_updates=2)
    stub_losses(monkeypatch, [2.0, 1.0])
    run_stage_script()
    assert all(tensor.isfinite().all() for tensor in load_file(LORA / "pytorch_lora_weights.safetensors").values())


def test_zero_updates_keep_the_text_encoder_and_draw_nothing(tuning_project: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["generator"]["model"] = "models/none"  # nothing is loaded
    Path("params.yaml").write_text(yaml.safe_dump(params))
    change_params(num_updates=0, held_out_prompts=1000)
    run_stage_script()
    assert {path.name for path in LORA.iterdir()} == {"tuning.json", "SHA256SUMS"}
    assert json.loads((LORA / "tuning.json").read_text()) == {"num_updates": 0}
    assert json.loads((REPORT / "metrics.json").read_text()) == {"tune/updates": 0, "tune/kept_update": 0}
    assert {path.name for path in (REPORT / "plots").iterdir()} == {"curve.csv", "reward_hacking.csv"}
