"""The photos that `tailorset annotate` shows, what it ticks at first, and what it cannot work with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tailorset.commands.annotating import ClipGuess, photo_desk
from tailorset.project.params import Params, load_params
from tailorset.records import LabelSpace
from tailorset.toybox.scenes import render, web_scene

ROOT = Path(__file__).resolve().parents[2]
SPACE = LabelSpace.load(ROOT / "data" / "labels" / "toybox.yaml")


def params_of(annotations: str | None) -> Params:
    params = yaml.safe_load(Path("params.yaml").read_text())
    block = {"name": "folder", "images": "photos", "annotations": annotations, "shard_size": 100}
    Path("params.yaml").write_text(yaml.safe_dump(params | {"prepare_dataset": block}))
    Path("photos").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save("photos/one.png")
    return load_params()


@pytest.mark.usefixtures("project")
def test_a_table_is_written_if_there_is_none() -> None:
    desk = photo_desk(params_of("data/labels/mine.csv"), SPACE)
    assert desk.ids == ["one.png"]
    assert desk.saved() == set()
    assert set(desk.show("one.png")[2].values()) == {0}
    assert Path("data/labels/mine.csv").read_text().splitlines()[1] == "one.png" + "," * len(SPACE.names)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("annotations", ["folders", "photos/instances.json", None])
def test_annotations_of_another_kind_are_not_written_to(annotations: str | None) -> None:
    with pytest.raises(ValueError, match=r"name a \.csv file"):
        photo_desk(params_of(annotations), SPACE)


@pytest.mark.usefixtures("project")
def test_another_data_set_is_not_annotated() -> None:
    with pytest.raises(ValueError, match="is toybox, and only photos of the data set folder"):
        photo_desk(load_params(), SPACE)


def test_clip_ticks_what_a_photo_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params = load_params()
    guess = ClipGuess(params.clip.discriminator.load(torch.device("cpu")), SPACE.names, params.clip.prompt_template)
    right = 0
    for number, label in enumerate(SPACE.unseen):
        scene = web_scene(np.random.default_rng(number), [label], 1)
        ticks = guess(Image.fromarray(render(scene, 64)))
        assert set(ticks) == set(SPACE.names)
        right += ticks[label]
    assert right >= len(SPACE.unseen) - 1
