"""kill -9 during generate_images: what was finished is kept, and the product equals an uninterrupted run's."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tailorset.generation import Studio
from tailorset.records import LabelSpace, Prompt, prompt_id

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "pipeline" / "generate_images.py"
PRODUCTS = ("data/synthetic", "reports/generate_images")
SETTINGS = {
    "images_per_label": 30, "max_images": 90, "quota_threshold": 0.2,
    "num_inference_steps": 2, "batch_size": 4, "shard_size": 8, "weakness": {"boat": 1.5},
    "allocation": {
        "name": "thompson", "round_images": 16, "gain": "labels",
        "max_share_per_prompt": 0.5, "max_share_per_pair": 0.5,
    },
}  # fmt: skip


@pytest.fixture
def generation_project(
    project: Path, tiny_clip_folder: Path, tiny_judge_folder: Path, tiny_diffusion_folder: Path
) -> Path:
    """A project with prompts, an untouched text encoder and tiny random models; 12 shards at most."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["generator"] |= {"model": str(tiny_diffusion_folder), "image_px": 16}
    for role, folder in (("discriminator", tiny_clip_folder), ("judge", tiny_judge_folder)):
        params["clip"][role] = {"model": f"local-dir:{folder}"}
    params["generate_images"] = SETTINGS
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    write_prompts(LabelSpace.load(params["label_space"]))
    lora = project / "models" / "text_encoder_lora"
    lora.mkdir(parents=True)
    (lora / "tuning.json").write_text(json.dumps({"num_updates": 0}))
    return project


def write_prompts(label_space: LabelSpace) -> None:
    prompts = [
        Prompt(prompt_id=prompt_id(labels, i), text=" next to ".join(labels), labels=labels, origin="llm", attempt=1)
        for labels in label_space.pairs()
        for i in range(2)
    ]
    path = Path("data/prompts/prompts.parquet")
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([prompt.model_dump() for prompt in prompts]), path)


def products(folder: Path) -> dict[str, bytes]:
    """Every file the stage wrote; plots are left out, a figure's bytes being matplotlib's business."""
    files = [path for product in PRODUCTS for path in sorted((folder / product).rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.suffix != ".png"}


def run_stage_script() -> None:
    runpy.run_path(str(SCRIPT), run_name="__main__")


def run_and_kill(folder: Path, after_shard: int) -> list[str]:
    """Start the stage in a process of its own and kill -9 it once a shard is finished; names of finished shards."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, str(SCRIPT)], cwd=folder, env=environment)
    try:  # a slow machine is no failure: how long to wait is for pytest's timeout to say
        while not list(folder.glob(f".work/generate_images/*/synthetic-{after_shard:05d}.tar.sha256")):
            assert process.poll() is None, "the stage ended before it could be killed"
            time.sleep(0.005)
    finally:
        process.kill()  # SIGKILL
    assert process.wait() == -signal.SIGKILL
    return sorted(path.name.removesuffix(".sha256") for path in folder.glob(".work/*/*/*.sha256"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards drawn in this process."""
    names: list[str] = []
    draw_shard = Studio.draw_shard

    def recorded(self: Studio, name: str, *arguments: object) -> object:
        names.append(name)
        return draw_shard(self, name, *arguments)

    monkeypatch.setattr(Studio, "draw_shard", recorded)
    return names


@pytest.mark.timeout(1800)
def test_killed_and_restarted_equals_uninterrupted(generation_project: Path, drawn: list[str]) -> None:
    run_stage_script()
    expected, all_shards = products(generation_project), list(drawn)
    assert len(all_shards) >= 6
    _remove_products(generation_project)
    drawn.clear()

    finished = run_and_kill(generation_project, after_shard=2)
    assert not (generation_project / "data/synthetic").exists()
    assert 3 <= len(finished) < len(all_shards)
    damaged = next(generation_project.glob(".work/*/*/synthetic-00001.tar"))
    damaged.write_bytes(damaged.read_bytes()[:-2000])

    run_stage_script()
    assert sorted(drawn) == sorted(set(all_shards) - set(finished) | {damaged.name})
    assert products(generation_project) == expected
    assert not list(generation_project.glob(".work/generate_images/*"))


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("one_thread")
def test_two_processes_killed_and_restarted_make_the_same_bytes(generation_project: Path) -> None:
    run_stage_script()
    expected = products(generation_project)
    _remove_products(generation_project)
    params = yaml.safe_load(Path("params.yaml").read_text()) | {"num_processes": 2}
    Path("params.yaml").write_text(yaml.safe_dump(params))

    assert len(run_and_kill(generation_project, after_shard=2)) >= 2
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    answer = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert answer.stderr.count("2 processes share this stage") == 1
    assert products(generation_project) == expected
    assert not list(generation_project.glob(".work/generate_images/*"))


def _remove_products(folder: Path) -> None:
    for product in PRODUCTS:
        (folder / product).rename(folder / f"first-{product.replace('/', '-')}")


def test_the_report_tells_what_happened_to_every_label(
    generation_project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_stage_script()
    unseen = LabelSpace.load(generation_project / "data/labels/toybox.yaml").unseen
    manifest = pd.read_parquet("data/synthetic/manifest.parquet")
    metrics = json.loads(Path("reports/generate_images/metrics.json").read_text())
    table = pd.read_csv("reports/generate_images/plots/pass_rate.csv").set_index("label")
    assert metrics["generate/images"] == len(manifest) <= SETTINGS["max_images"]
    assert tuple(table.index) == unseen
    for label in unseen:
        requests = sum(label in labels for labels in manifest["labels"])
        assert table.loc[label, "drawn"] == requests
        assert metrics[f"generate/pass_rate/{label}"] == table.loc[label, "kept"] / requests
    under = [label for label in unseen if table.loc[label, "kept"] < SETTINGS["images_per_label"]]
    assert metrics["generate/under_quota"] == len(under)
    assert all(f"{label}: " in caplog.text for label in under)
    for name in ("pass_rate.png", "kept.png", "rejected.png"):
        assert Path("reports/generate_images/plots", name).stat().st_size > 1000
