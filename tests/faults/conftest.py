"""A small project whose stages are finished once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.faults.stage_runs import StageRuns, measured
from tests.small_project import make_small_project, run

LARGER = {
    "tune_text_encoder": {
        "num_updates": 24,
        "batch_size": 2,
        "checkpoint_every": 2,
        "evaluate_every": 6,
        "patience": 9,
        "held_out_prompts": 6,
    },
    "generate_images": {
        "images_per_label": 60,
        "max_images": 320,
        "negative_images": 32,
        "shard_size": 16,
        "batch_size": 16,
    },
    "train_classifier": {"num_epochs": 4, "held_out_share": 0.3},
}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after `dvc repro train_classifier`."""
    folder = tmp_path_factory.mktemp("faults")
    make_small_project(folder, **LARGER)
    run(folder, "dvc", "repro", "train_classifier")
    return folder


@pytest.fixture(scope="session")
def runs_of(finished: Path) -> Callable[[str], StageRuns]:
    """A stage of that project, measured once."""
    return cache(lambda name: measured(finished, name))
