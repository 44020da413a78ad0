"""`tailorset.generate`: labelled images with their origin, without a repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import tailorset

ROOT = Path(__file__).resolve().parents[2]
LABELS = ["umbrella", "fish", "key"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The models of the toybox, in a folder that holds nothing else."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    toybox = yaml.safe_load((ROOT / "presets" / "toybox.yaml").read_text(encoding="utf-8"))
    return {
        "generator": toybox["generator"],
        "llm": toybox["write_prompts"]["llm"],
        "clip": toybox["clip"]["discriminator"],
        "num_inference_steps": 2,
        "prompts_per_pair": 1,
        "device": "cpu",
    }


def test_images_come_with_labels_and_all_that_draws_them_again(settings: dict[str, Any], tmp_path: Path) -> None:
    found = list(tailorset.generate(LABELS, **settings, num_images=8, keep_rejected=True))
    assert list(tmp_path.iterdir()) == [tmp_path / "models"]
    assert len(found) == 8
    assert {one.labels for one in found} >= {("umbrella",), ("fish", "key")}  # alone and in pairs
    for one in found:
        assert all(label in one.prompt for label in one.labels)
        assert one.image.size == (settings["generator"]["image_px"],) * 2
        assert one.accepted == (one.confidence > 0.5)
        lineage = json.loads(json.dumps(one.lineage))
        assert lineage["prompt"]["text"] == one.prompt
        assert lineage["generator"] == settings["generator"]
    assert len({one.lineage["seed"] for one in found}) == 8
    alone = list(tailorset.generate(LABELS, **settings, num_images=8, keep_rejected=True, batch_size=3))
    for one, again in zip(found, alone, strict=True):  # rounding may move a pixel by one step of 255
        assert np.abs(np.asarray(one.image, int) - np.asarray(again.image, int)).max() <= 1
    other = next(tailorset.generate(LABELS, **settings, num_images=1, keep_rejected=True, seed=1))
    assert (np.asarray(other.image) != np.asarray(found[0].image)).any()


def test_few_images_show_every_label_and_pair(settings: dict[str, Any]) -> None:
    settings["prompts_per_pair"] = 3
    settings["generator"] |= {"model": Path(settings["generator"]["model"])}
    few = list(tailorset.generate(LABELS, **settings, num_images=6, keep_rejected=True))
    assert len({one.labels for one in few}) == 6  # three labels, three pairs
    assert json.dumps([dict(one.lineage) for one in few])


def test_rejected_images_are_left_out(settings: dict[str, Any]) -> None:
    every = list(tailorset.generate(LABELS, **settings, num_images=6, keep_rejected=True))
    limit = sorted(one.confidence for one in every)[3]
    kept = list(tailorset.generate(LABELS, **settings, num_images=6, threshold=limit))
    assert [one.lineage["image_id"] for one in kept] == [o.lineage["image_id"] for o in every if o.confidence > limit]
    assert len(kept) < len(every)


@pytest.mark.parametrize(
    ("labels", "changes", "fault"),
    [
        (["fish", "key"], {}, "give at least 3"),
        (["fish", "key", "fish"], {}, "listed more than once"),
        (["fish", "key", "a,b\n"], {}, "not a label name"),
        (LABELS, {"generator": {"name": "stable_difusion", "model": "x"}}, "stable_diffusion"),
        (LABELS, {"generator": {"name": "stable_diffusion", "model": "nowhere", "image_px": 32}}, "nowhere"),
        (LABELS, {"clip": {"model": "local-dir:nowhere"}}, "nowhere"),
        (LABELS, {"clip": {"modl": "x"}}, "model"),
        (LABELS, {"threshold": 2}, "threshold is 2: choose"),
        (LABELS, {"device": "gpu"}, "device: 'gpu'.*auto, cpu, cuda"),
        (LABELS, {"clip": {"model": "Foo"}}, "e.g. RN50, ViT-B-16"),
        (LABELS, {"num_images": 0}, "num_images is 0"),
        (LABELS, {"batch_size": 0}, "batch_size is 0"),
        ("fish", {}, "labels must be a list"),
        (LABELS, {"prompts_per_pair": 0}, "prompts_per_pair"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_drawn(
    labels: list[str], changes: dict[str, Any], fault: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=fault):
        tailorset.generate(labels, **(settings | changes))
