"""benchmarks/flawless.py: its pictures show what they should, and its rows are trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flawless import flawless, main, relabelled

from tailorset.records import LabelSpace
from tailorset.storage.image_set import ImageSet
from tailorset.toybox.oracle import load_oracle
from tests.classifier_project import write_classifier_project

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("style", ["drawing", "snapshot"])
def test_pictures_show_the_labels_of_the_images_they_replace(style: str) -> None:
    names = LabelSpace.load(ROOT / "data/labels/toybox.yaml").names
    targets = torch.full((40, len(names)), -1, dtype=torch.int8)
    targets[:, :6] = 0
    targets[torch.arange(40), torch.arange(40) % 6] = 1
    targets[::2, 5] = 1
    blank = torch.zeros(40, 3, 128, 128, dtype=torch.uint8)
    drawn = flawless(ImageSet(tuple(map(str, range(40))), blank, targets, "synthetic"), names, style)
    assert torch.equal(drawn.targets, targets)
    assert drawn.images.shape == blank.shape
    oracle = load_oracle(ROOT / "models" / "foundation" / "toybox" / "oracle")
    columns = [oracle.labels.index(name) for name in names]
    with torch.no_grad():
        shown = oracle.shown(drawn.images.float() / 255)[:, columns] > 0.5
    assert (shown[:, :6] == (targets[:, :6] == 1)).float().mean() > 0.98
    assert not shown[:, 6:].float().mean() > 0.01


def test_the_oracle_labels_what_it_sees_and_drops_the_rest() -> None:
    space = LabelSpace.load(ROOT / "data/labels/toybox.yaml")
    truth = torch.zeros(12, len(space.names), dtype=torch.int8)
    truth[torch.arange(12), torch.tensor(space.columns(space.unseen) * 2)] = 1
    blank = torch.zeros(12, 3, 64, 64, dtype=torch.uint8)
    drawn = flawless(ImageSet(tuple(map(str, range(12))), blank, truth, "synthetic"), space.names, "snapshot")
    drawn.images[11] = 128  # shows nothing
    wrong = replace(drawn, targets=truth.roll(1, 0))
    oracle = load_oracle(ROOT / "models" / "foundation" / "toybox" / "oracle")
    found = relabelled(wrong, space, oracle)
    assert found.ids == tuple(map(str, range(11)))
    assert (found.targets == truth[:11]).all(1).sum() >= 10  # the oracle is right in 0.98


def test_a_row_is_a_training_with_and_without_generated_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "labels").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    write_classifier_project(ROOT / "models" / "foundation" / "toybox" / "backbone")
    main(["none", "generated", "snapshot", "--set", "num_epochs=2", "warmup_epochs=0"])
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows] == ["none", "generated", "snapshot"]
    assert all(row.count(" / ") == 2 for row in rows)
    assert len({row.partition("| ")[2].partition("|")[2] for row in rows}) == 3
    with pytest.raises(SystemExit):
        main(["photos"])
    assert "choose from none, generated, relabelled, drawing, snapshot, photo" in capsys.readouterr().err
