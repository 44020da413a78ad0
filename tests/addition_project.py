"""A project in which `tailorset add-label` runs: a small classifier, its images, and tiny random models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml

from tailorset.commands.adding import Addition
from tailorset.plugins import load_plugin
from tailorset.project.layout import CLASSIFIER, FITTED_TO, LORA, NOVELTY, SYNTHETIC, THRESHOLDS, UNET_LORA
from tailorset.project.params import load_params
from tailorset.records import LabelSpace
from tailorset.storage import checksums
from tailorset.thresholds.novelty import fit_novelty
from tailorset.thresholds.rules import LabelRule, Thresholds
from tests.classifier_project import ROOT, write_classifier_project

SETTINGS: dict[str, Any] = {
    "write_prompts": {"llm": {"name": "template", "batch_size": 8}, "prompts_per_pair": 3},
    "tune_unet": {"num_updates": 0},
    "tune_text_encoder": {"num_updates": 0, "held_out_prompts": 2},
    "generate_images": {
        "images_per_label": 12,
        "max_images": 60,
        "negative_images": 6,
        "quota_threshold": 0.0,
        "num_inference_steps": 2,
        "batch_size": 4,
        "shard_size": 4,
    },
    "filter_images": {"threshold": 0.0},
    "validate_data": {"min_images_per_label": 4},
    "fit_thresholds": {"source": "synthetic"},
}


def write_addition_project(clip: Path, judge: Path) -> None:
    """Write settings, images and a trained classifier in the current folder.

    The generator is the toybox's, as a tiny one reads no whole prompt.
    """
    write_classifier_project(judge)
    params = yaml.safe_load(Path("params.yaml").read_text())
    for block, values in SETTINGS.items():
        params[block] |= values
    params["generator"]["model"] = str(ROOT / params["generator"]["model"])
    for role, folder in (("discriminator", clip), ("judge", judge)):
        params["clip"][role] = {"model": f"local-dir:{folder}"}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    Path("dvc.lock").write_text("schema: '2.0'\n")
    for adapter in (UNET_LORA, LORA):
        adapter.mkdir(parents=True)
        (adapter / "tuning.json").write_text(json.dumps({"num_updates": 0}))
    pq.write_table(pq.read_table("data/filtered/manifest.parquet"), SYNTHETIC / "manifest.parquet")
    write_model()


def write_model() -> None:
    """Save an untrained classifier with thresholds and a limit of novelty, as if it were trained."""
    params = load_params()
    space = LabelSpace.load(params.label_space)
    plugin = load_plugin("classifiers", "dual_prompt")
    classifier = plugin.build(params.train_classifier.config, space, torch.device("cpu"))
    classifier.save(CLASSIFIER)
    Thresholds(dict.fromkeys(space.names, LabelRule(1.0, 0.0, 0.5, 0.4, 0.6)), photo_px=64).save(THRESHOLDS)
    features = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
    fit_novelty(features[:40], features[40:]).save(NOVELTY)
    checksums.bind(CLASSIFIER, FITTED_TO)


def start_addition(addition: Addition, **options: Any) -> subprocess.Popen[str]:
    """Start the script in its own process, from the current folder."""
    command = [sys.executable, str(ROOT / "pipeline" / "add_label.py"), addition.model_dump_json()]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(command, env=environment, text=True, **options)
