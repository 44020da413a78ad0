"""Targets of further labels: read from the data set where it has the very same photos, unknown elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tailorset.datasets.reading.further_labels import with_further_labels
from tailorset.images.codec import encode_png
from tailorset.records import Example, LabelSpace, RealSample, Rejected, Split
from tailorset.storage.image_set import real_rows
from tailorset.storage.location import shards_of
from tailorset.storage.shards import load_images, sha256, write_shard

PNGS = {name: encode_png(np.full((4, 4, 3), value, np.uint8)) for value, name in enumerate(("t", "v", "w", "x"))}
SPLITS: Mapping[str, Split] = {"t": "train", "v": "val", "w": "val", "x": "test"}


class Annotating:
    """Photo `w` has changed since it was prepared."""

    sizes: Mapping[Split, int] = {"train": 1, "val": 2, "test": 2}
    notes = ()

    def samples(self, split: Split, start: int = 0) -> Iterator[RealSample | Rejected]:
        for name in (name for name, other in SPLITS.items() if other == split):
            yield RealSample(name, PNGS["x"] if name == "w" else PNGS[name], {"drum": 1, "fish": 0})
        if split == "test":
            yield Rejected("y", "unreadable")

    def sheets(self, num_examples: int) -> Mapping[str, list[Example]]:
        return {}


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_shard(Path("real/shards/a.tar"), PNGS.items())
    rows = [{"image_id": n, "split": SPLITS[n], "shard": "a.tar", "sha256": sha256(png)} for n, png in PNGS.items()]
    pd.DataFrame(rows).to_parquet("real/manifest.parquet")
    pd.DataFrame({"image_id": list(PNGS), "fish": pd.Series([-1, 1, 1, 0], dtype="int8")}).to_parquet(
        "real/targets.parquet"
    )
    return Path("real")


def test_the_same_photos_get_the_annotation_of_the_data_set(real: Path) -> None:
    with_further_labels(real, ["fish", "drum"], Annotating(), Path("further"))
    targets = pd.read_parquet("further/targets.parquet").set_index("image_id")
    assert targets["drum"].to_dict() == {"t": -1, "v": 1, "w": -1, "x": 1}
    assert targets["fish"].to_dict() == {"t": -1, "v": 1, "w": 1, "x": 0}  # as it was
    assert set(targets.dtypes) == {np.dtype("int8")}
    assert shards_of(Path("further")) == Path("real/shards")
    rows = pd.read_parquet("further/manifest.parquet")
    assert [name for name, _ in load_images(rows, "further")] == list(PNGS)


def test_without_a_data_set_nothing_is_known_of_them(real: Path) -> None:
    with_further_labels(real, ["drum"], None, Path("further"))
    labels = [{"name": "fish", "seen": False}, {"name": "drum", "seen": False}]
    _, targets = real_rows(Path("further"), "val", LabelSpace.model_validate({"name": "two", "labels": labels}))
    assert targets.tolist() == [[1, -1], [1, -1]]
