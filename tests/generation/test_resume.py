"""kill -9 during generate_images: what was finished is kept, and the product equals an uninterrupted run's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tailorset.generation.studio import PlannedShard, Studio
from tailorset.records import LabelSpace
from tests.generation_project import (
    SETTINGS,
    change_params,
    products,
    remove_products,
    run_and_kill,
    run_stage_script,
    start_stage,
)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards drawn in this process."""
    names: list[str] = []
    draw_shard = Studio.draw_shard

    def recorded(self: Studio, plan: PlannedShard, *arguments: object) -> object:
        names.append(plan.name)
        return draw_shard(self, plan, *arguments)

    monkeypatch.setattr(Studio, "draw_shard", recorded)
    return names


@pytest.mark.timeout(1800)
def test_killed_and_restarted_equals_uninterrupted(generation_project: Path, drawn: list[str]) -> None:
    run_stage_script()
    expected, all_shards = products(generation_project), list(drawn)
    assert len(all_shards) >= 6
    remove_products(generation_project)
    drawn.clear()

    finished = run_and_kill(generation_project, after=5)  # two of them with negatives
    assert not (generation_project / "data/synthetic").exists()
    assert 5 <= len(finished) < len(all_shards)
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
    remove_products(generation_project)
    change_params(num_processes=2)

    assert len(run_and_kill(generation_project, after=5)) >= 2
    process = start_stage(generation_project, stderr=subprocess.PIPE)
    _, told = process.communicate()
    assert process.returncode == 0, told[-3000:]
    assert told.count("2 processes share this stage") == 1
    assert products(generation_project) == expected
    assert not list(generation_project.glob(".work/generate_images/*"))


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
