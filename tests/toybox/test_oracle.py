"""The oracle is right about drawings, names its outputs, and refuses files it cannot read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tailorset.records import LabelSpace
from tailorset.seeding import numpy_rng
from tailorset.toybox.objects import COLOURS
from tailorset.toybox.oracle import WEIGHTS, Oracle, load_oracle, save_oracle
from tailorset.toybox.scenes import render, web_scene

ROOT = Path(__file__).parents[2]
NAMES = LabelSpace.load(ROOT / "data" / "labels" / "toybox.yaml").names


@pytest.fixture(scope="module")
def committed() -> Oracle:
    return load_oracle(ROOT / "models" / "foundation" / "toybox" / "oracle")


def test_the_committed_oracle_finds_what_fresh_scenes_show(committed: Oracle) -> None:
    scenes = [web_scene(numpy_rng("test oracle", i), NAMES) for i in range(150)]
    images = torch.from_numpy(np.stack([render(scene, 64) for scene in scenes])).permute(0, 3, 1, 2) / 255
    present = torch.tensor([[name in {item.label for item in scene.items} for name in NAMES] for scene in scenes])
    found = committed.sees(images, NAMES)
    assert torch.equal(committed.sees(images, NAMES[::-1]), found.flip(1))
    assert (found == present).float().mean() > 0.99
    assert found[present].float().mean() > 0.95  # accuracy alone would be 0.92 for an oracle that sees nothing
    assert found[~present].float().mean() < 0.01


def test_its_columns_are_the_label_space_and_the_colours(committed: Oracle) -> None:
    assert committed.labels == NAMES
    assert committed.colours == tuple(COLOURS)
    probabilities = committed.probabilities(torch.rand(3, 3, 48, 48))
    assert probabilities.shape == (3, len(NAMES), 1 + len(COLOURS))
    assert not any(weight.requires_grad for weight in committed.parameters())


def test_what_is_written_is_read_again_in_any_batch(tmp_path: Path) -> None:
    oracle = Oracle(["cup", "key"], ["red"], width=4).eval()
    save_oracle(oracle, tmp_path)
    again = load_oracle(tmp_path)
    images = torch.rand(5, 3, 32, 32)
    torch.testing.assert_close(again.shown(images), oracle.shown(images), atol=2e-3, rtol=0)  # half precision on disk
    torch.testing.assert_close(again.shown(images[:1]), again.shown(images)[:1])


def test_a_missing_or_truncated_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="git checkout"):
        load_oracle(tmp_path)
    save_oracle(Oracle(["cup"], ["red"], width=4), tmp_path)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:-9])
    with pytest.raises(ValueError, match="cannot be used"):
        load_oracle(tmp_path)
