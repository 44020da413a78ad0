"""A project to run generate_images in, with tiny random models, and the products of the stage."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from upath import UPath

from tailorset.records import LabelSpace, Prompt, prompt_id

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "pipeline" / "generate_images.py"
PRODUCTS = ("data/synthetic", "reports/generate_images")
SETTINGS = {
    "images_per_label": 30,
    "max_images": 90,
    "negative_images": 12,
    "quota_threshold": 0.2,
    "num_inference_steps": 2,
    "batch_size": 4,
    "shard_size": 8,
    "weakness": {"boat": 1.5},
    "allocation": {
        "name": "thompson",
        "round_images": 16,
        "gain": "labels",
        "max_share_per_prompt": 0.5,
        "max_share_per_pair": 0.5,
    },
}


def prepare_generation(project: Path, clip: Path, judge: Path, diffusion: Path) -> None:
    """Give a project prompts, an untouched text encoder and these models; 12 shards at most."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    generator = params["generator"] | {"model": str(diffusion), "image_px": 16}
    clips = {role: {"model": f"local-dir:{folder}"} for role, folder in (("discriminator", clip), ("judge", judge))}
    change_params(generator=generator, clip=params["clip"] | clips, generate_images=SETTINGS)
    write_prompts(LabelSpace.load(params["label_space"]))
    for name in ("unet_lora", "text_encoder_lora"):
        adapter = project / "models" / name
        adapter.mkdir(parents=True)
        (adapter / "tuning.json").write_text(json.dumps({"num_updates": 0}))


def change_params(**changes: Any) -> None:
    """Set keys of the top level of params.yaml in the current folder."""
    params = yaml.safe_load(Path("params.yaml").read_text()) | changes
    Path("params.yaml").write_text(yaml.safe_dump(params))


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
    """Every file the stage wrote; plots are left out, as the bytes of a figure depend on matplotlib."""
    files = [path for product in PRODUCTS for path in sorted((folder / product).rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.suffix != ".png"}


def remove_products(folder: Path) -> None:
    for product in PRODUCTS:
        (folder / product).rename(folder / f"first-{product.replace('/', '-')}")


def run_stage_script() -> None:
    runpy.run_path(str(SCRIPT), run_name="__main__")


def start_stage(folder: Path, **options: Any) -> subprocess.Popen[str]:
    """Start the stage in its own process."""
    environment: Mapping[str, str] = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen([sys.executable, str(SCRIPT)], cwd=folder, env=environment, text=True, **options)


def resume_folder(process: subprocess.Popen[str], project: Path) -> Path:
    """Return the folder of the stage's finished shards, as soon as it exists.

    A slow machine is not a failure: only pytest's timeout ends the wait.
    """
    while not (folders := list(project.glob(".work/generate_images/*"))):
        assert process.poll() is None, "the stage ended before it began"
        time.sleep(0.005)
    return folders[0]


def wait_for_shards(process: subprocess.Popen[str], folder: Path, number: int) -> list[str]:
    """Wait for at least `number` finished shards in or below a folder, which may be a bucket's; return their names."""
    while len(seals := sorted(folder.rglob("*.sha256"))) < number:
        assert process.poll() is None, "the stage ended before it finished these shards"
        time.sleep(0.005)
        if isinstance(folder, UPath):
            folder.fs.invalidate_cache()
    return [path.name.removesuffix(".sha256") for path in seals]


def run_and_kill(project: Path, after: int, folder: Path | None = None) -> list[str]:
    """Start the stage and kill -9 it once `after` shards are finished; return their names.

    folder: of the shards, if that is not the resume folder.
    """
    process = start_stage(project)
    try:
        folder = folder or resume_folder(process, project)
        wait_for_shards(process, folder, after)
    finally:
        process.kill()  # SIGKILL
    assert process.wait() == -signal.SIGKILL
    return wait_for_shards(process, folder, 0)
