"""The contract of every data set; those that need the user's files have their own tests."""

import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tailorset.datasets import Dataset
from tailorset.images.codec import decode_image
from tailorset.plugins import load_plugin, plugin_names
from tailorset.records import SPLITS, LabelSpace

ROOT = Path(__file__).resolve().parents[2]
SPACE = LabelSpace.load(ROOT / "data" / "labels" / "toybox.yaml")
EMBEDDED = [
    name
    for name in plugin_names("datasets")
    if not load_plugin("datasets", name).Config.model_json_schema().get("required")
]


@pytest.fixture(params=EMBEDDED)
def dataset(request: pytest.FixtureRequest) -> Dataset:
    plugin = load_plugin("datasets", request.param)
    return plugin.build(plugin.Config(), SPACE, 0)


def test_the_embedded_world_is_covered() -> None:
    assert "toybox" in EMBEDDED


def test_every_split_has_images_that_can_be_read(dataset: Dataset) -> None:
    assert set(dataset.sizes) == set(SPLITS)
    for split in SPLITS:
        for sample in islice(dataset.samples(split), 3):
            assert min(decode_image(sample.png).size) >= 16
            assert set(sample.targets.values()) <= {0, 1}
            assert re.fullmatch("[A-Za-z0-9_-]{1,90}", sample.image_id)  # it names a file


def test_train_is_annotated_for_seen_labels_only(dataset: Dataset) -> None:
    assert all(set(sample.targets) <= set(SPACE.seen) for sample in islice(dataset.samples("train"), 5))
    for split in ("val", "test"):
        assert all(set(sample.targets) == set(SPACE.names) for sample in islice(dataset.samples(split), 5))


def test_a_later_start_gives_the_same_samples(dataset: Dataset) -> None:
    assert list(islice(dataset.samples("test"), 2, 5)) == list(islice(dataset.samples("test", start=2), 3))


def test_sheets_show_images_with_captions(dataset: Dataset) -> None:
    for examples in dataset.sheets(2).values():
        assert len(examples) == 2
        for example in examples:
            assert example.image.dtype == np.uint8
            assert example.caption
