"""A project of which MLflow holds two executions, with stages, figures, sheets and registered versions.

Pictures are drawings of the toybox and figures those of random scores; everything is logged by the pipeline's own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from pipeline.register_model import register_and_present
from tailorset.evaluation.comparison import Method, all_scores, comparison_metrics, per_label_table
from tailorset.evaluation.results import CLIP, CLIP_PATCHES, OURS
from tailorset.images.sheets import contact_sheet
from tailorset.inference.versions import CHAMPION
from tailorset.project.layout import MODEL_CARD, PER_LABEL, SCORES
from tailorset.project.params import flatten, load_params
from tailorset.project.tracking import Tracker, connect
from tailorset.records import LabelSpace
from tailorset.registry.model_card import gather, model_card
from tailorset.registry.parent_run import SHEETS, headline
from tailorset.thresholds.rules import LabelRule, Thresholds
from tailorset.toybox.scenes import photo_scene, render
from tests.registered import MEASUREMENT, write_model

ROOT = Path(__file__).resolve().parents[1]
NUM_PHOTOS, NUM_TILES, TILE_PX = 300, 16, 64
STAGES = {  # a few metrics of each, as in a run of the toybox
    "prepare_dataset": {"real/train/num_images": 160, "real/val/num_images": 60, "real/test/num_images": NUM_PHOTOS},
    "write_prompts": {"prompts/count": 210},
    "tune_text_encoder": {"acceptance/before/judge": 0.31, "acceptance/after/judge": 0.36},
    "generate_images": {"generate/images": 96, "generate/under_quota": 0},
    "filter_images": {"filter/kept": 61},
    "train_classifier": {"val/zsl/map": 0.5},
    "fit_thresholds": {
        "trust/fitted/zsl/ece": 0.05,
        "trust/fitted/zsl/f1_macro": 0.4,
        "trust/fitted/zsl/coverage": 0.8,
    },
    "evaluate": {},
}
EXECUTIONS = {"amber-fox": (0.9, {}), "sunny-dune": (0.6, {"train_classifier": {"num_epochs": 8}})}  # noise, settings


def track_executions(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Log both executions in the empty folder `root`, the current one, and make the first version the champion."""
    space = LabelSpace.load(ROOT / "data" / "labels" / "toybox.yaml")
    thresholds = Thresholds({name: LabelRule(1.5, -0.5, 0.4, 0.3, 0.6) for name in space.names})
    write_model(root, space, thresholds)
    (root / "dvc.lock").write_text(
        "stages: {prepare_dataset: {outs: [{path: data/real, md5: 0a1b2c3d.dir}]},"
        " filter_images: {outs: [{path: data/filtered, md5: 4e5f6a7b.dir}]}}\n"
    )
    (root / "data" / "labels").symlink_to(ROOT / "data" / "labels")
    for path in SHEETS.values():
        write_sheet(path, space)
    for name, (noise, changes) in EXECUTIONS.items():
        patch.setenv("DVC_EXP_NAME", name)
        log_execution(root, space, thresholds, noise, changes)
    client, _ = connect(root)
    client.set_registered_model_alias("tailorset-toybox", CHAMPION, "1")


def write_sheet(path: Path, space: LabelSpace) -> None:
    """Write a contact sheet of toys, each with the labels that it shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scenes = [photo_scene(np.random.default_rng([len(path.stem), n]), space.names) for n in range(NUM_TILES)]
    captions = [", ".join(sorted({item.label for item in scene.items})) for scene in scenes]
    contact_sheet([render(scene, TILE_PX) for scene in scenes], captions, columns=8, title=path.stem).save(path)


def log_execution(
    root: Path, space: LabelSpace, thresholds: Thresholds, noise: float, changes: Mapping[str, Mapping[str, Any]]
) -> None:
    """Log one run per stage and the parent's results, and register a version. noise: of our scores."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for block, values in changes.items():
        content[block] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    params = load_params(root / "params.yaml")
    for name, metrics in STAGES.items():
        with Tracker(name, root, flatten({name: content.get(name, {})})) as tracker:
            tracker.log_metrics(metrics)
    shown = (torch.rand(NUM_PHOTOS, len(space.names), generator=torch.Generator().manual_seed(0)) < 0.15).long()
    methods = [Method(row, scores(shown, add)) for row, add in ((CLIP, 1.2), (CLIP_PATCHES, 1.1), (OURS, noise))]
    metrics = comparison_metrics(methods, shown, space, [3])
    metrics |= {key: value for values in STAGES.values() for key, value in values.items()}
    SCORES.parent.mkdir(parents=True, exist_ok=True)
    ids = [f"test-{number:06d}" for number in range(NUM_PHOTOS)]
    all_scores(methods, shown, ids, space.names).to_parquet(SCORES, index=False)
    per_label_table(methods, shown, space).to_csv(PER_LABEL, index=False)
    of_rows = {method.row: method.scores for method in methods if method.row in (CLIP, OURS)}
    MODEL_CARD.write_text(model_card(gather(params, space, thresholds, metrics, of_rows, shown)))
    with Tracker("register_model", root, {}) as tracker:
        tracker.summarise(flatten(content), headline(metrics) | metrics)
        stage = SimpleNamespace(params=params, label_space=space, root=root.resolve(), tracker=tracker)
        register_and_present(stage, MEASUREMENT, metrics)
        assert tracker.is_up


def scores(shown: Tensor, noise: float) -> Tensor:
    """Return scores of the labels that are shown, with noise: the more of it, the worse they are."""
    return shown + noise * torch.randn(shown.shape, generator=torch.Generator().manual_seed(1))
