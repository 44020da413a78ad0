"""`make bench` runs on the models of params.yaml, draws what the stock pipeline draws, and writes its figures."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def test_bench_measures_all_four_and_agrees_with_the_stock_pipeline(
    project: Path,
    tiny_clip_folder: Path,
    tiny_diffusion_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["generator"] |= {"model": str(tiny_diffusion_folder), "image_px": 8, "guidance_scale": 3.0}
    params["clip"]["discriminator"] = {"model": f"local-dir:{tiny_clip_folder}"}
    params["generate_images"] |= {"num_inference_steps": 2, "batch_size": 8}
    params["tune_text_encoder"] |= {"num_inference_steps": 2, "stop_after": [1, 2], "batch_size": 2}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    runpy.run_path(str(ROOT / "benchmarks" / "bench.py"))["main"](["--repetitions", "1"])

    figures = json.loads(Path("reports/bench.json").read_text())
    assert figures["largest_pixel_difference"] < 1e-4
    assert len(figures["comparisons"]) == 3
    printed = capsys.readouterr().out
    for row in figures["comparisons"]:
        assert row["ratio"] == pytest.approx(row["stock_s"] / row["ours_s"])
        assert row["name"] in printed
    assert 0 < figures["utilisation"]["mfu"] < 1.5
    assert 0.3 < figures["utilisation"]["unet_share_of_flops"] < 1
