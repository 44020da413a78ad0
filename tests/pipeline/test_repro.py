"""The whole system on the real foundation weights, small: `dvc repro` from a fresh copy to a registered classifier."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.faults.stage_runs import fill_the_disk, kill_at_random_moments, measured
from tests.small_project import make_small_project, run

METRICS = {
    f"{prefix}{key}"
    for prefix in ("", "baseline/clip/", "baseline/clip_patches/")
    for key in ("zsl/map", "zsl/f1_at_3", "gzsl/map", "gzsl/f1_at_3")
} | {f"acceptance/{when}/{who}" for when in ("before", "after") for who in ("discriminator", "judge")}
ANSWER = """
import io, mlflow, pandas as pd
from PIL import Image
image = io.BytesIO(); Image.new("CMYK", (301, 77), (10, 200, 30, 0)).save(image, "JPEG")
model = mlflow.pyfunc.load_model("models:/tailorset-toybox@challenger")
print(model.predict(pd.DataFrame({"image": [image.getvalue()]})).to_json())
"""
DECISIONS = {"present", "absent", "open"}
NOISE = re.compile(r"\r|kernels|Loading weights|Downloading|push|git add|temporary directory|INFO|lock file")


@pytest.fixture(scope="module")
def small_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks, with small settings, committed."""
    folder = tmp_path_factory.mktemp("project")
    make_small_project(folder)
    output = run(folder, "tailorset", "run")
    assert [line for line in output.splitlines() if "stage 13 of 13" in line]
    assert not NOISE.search(output), output
    return folder


@pytest.mark.timeout(1500)
def test_one_command_makes_metrics_and_a_registered_model(small_project: Path) -> None:
    metrics = json.loads((small_project / "reports/metrics.json").read_text())
    assert set(metrics) >= METRICS
    assert all(0 <= metrics[key] <= 1 for key in METRICS)
    assert "ours" in run(small_project, "tailorset", "results")
    card = (small_project / "reports/card/index.html").read_text(encoding="utf-8")
    assert card.count("<section") == 6
    assert "Not measured: the ladder</strong>" in card
    answer = json.loads(
        run(
            small_project, sys.executable, "-c", ANSWER, MLFLOW_TRACKING_URI=f"sqlite:///{small_project}/mlflow.db"
        ).splitlines()[-1]
    )
    kinds = [column.partition("/")[0] for column in answer]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "novelty": 1,
        "probability": 20,
        "decision": 20,
        "threshold": 20,
        "score": 20,
    }
    assert all(0 <= value["0"] <= 1 for column, value in answer.items() if column.startswith(("probability", "score")))
    assert {value["0"] for column, value in answer.items() if column.startswith("decision/")} <= DECISIONS


@pytest.mark.timeout(600)
def test_a_second_run_runs_no_stage(small_project: Path) -> None:
    before = (small_project / "dvc.lock").read_bytes()
    *others, last = run(small_project, "tailorset", "run").splitlines()
    assert last == "Every stage is up to date."
    assert all(line.startswith("Other programs use") for line in others)
    assert (small_project / "dvc.lock").read_bytes() == before


@pytest.mark.timeout(900)
def test_one_stage_stands_a_kill_and_a_full_disk(small_project: Path) -> None:
    """`make faults` on a small scale, so that it works when it is needed."""
    stage = measured(small_project, "generate_images")
    kill_at_random_moments(stage, 1)
    fill_the_disk(stage, 0.4)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sweep_repeats_only_what_its_key_changes(small_project: Path) -> None:
    output = run(small_project, "dvc", "exp", "run", "--temp", "--set-param", "filter_images.threshold=0.3")
    assert "Running stage 'filter_images'" in output
    assert "Running stage 'generate_images'" not in output
    shown = json.loads(run(small_project, "dvc", "exp", "show", "--json"))
    assert "0.3" in json.dumps(shown)
