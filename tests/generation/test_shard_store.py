"""Only shards that are whole are taken over from an interrupted run."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tailorset.generation.quota import Draw
from tailorset.generation.report import rows_at
from tailorset.generation.shard_store import ShardStore, write_manifest
from tailorset.generation.studio import Row, Samples, manifest_row
from tailorset.images.codec import encode_png
from tailorset.records import SYNTHETIC_COLUMNS, Prompt

NAME = "synthetic-00000.tar"


def shard(name: str = NAME, num_images: int = 3) -> tuple[str, list[Row], Samples]:
    prompt = Prompt(prompt_id="abc", text="a boat", labels=("boat",), origin="llm", attempt=1)
    rows, samples = [], []
    for index in range(num_images):
        draw, pixels = Draw(prompt, index, "boat"), np.full((8, 8, 3), 40 * index % 256, np.uint8)
        png, logits = encode_png(pixels), np.float32([0.1, index])
        samples.append((draw.image_id, png))
        rows.append(manifest_row(name, draw, 2**63 - 1 - index, pixels, png, logits, -logits))
    return name, rows, samples


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    store = ShardStore(tmp_path)
    store.keep(*shard())
    return store


def test_a_kept_shard_is_found_with_exactly_its_rows(store: ShardStore) -> None:
    assert store.finished_rows(NAME) == shard()[1]
    assert store.finished_rows("synthetic-00001.tar") is None


@pytest.mark.parametrize("name", [NAME, f"{NAME}.rows.parquet"])
def test_a_file_cut_off_is_noticed(store: ShardStore, name: str, caplog: pytest.LogCaptureFixture) -> None:
    path = store.folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        assert store.finished_rows(NAME) is None
    assert NAME in caplog.text
    assert "drawn again" in caplog.text


def test_every_flipped_bit_is_noticed(store: ShardStore, caplog: pytest.LogCaptureFixture) -> None:
    draw, files = random.Random(0), sorted(store.folder.iterdir())
    assert [file.name for file in files] == [NAME, f"{NAME}.rows.parquet", f"{NAME}.sha256"]
    for _ in range(100):
        path = draw.choice(files)
        whole = path.read_bytes()
        place = draw.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert store.finished_rows(NAME) is None
        assert "sha256" in caplog.text
        path.write_bytes(whole)
    assert store.finished_rows(NAME) == shard()[1]


@pytest.mark.parametrize("lost", [NAME, f"{NAME}.rows.parquet", f"{NAME}.sha256"])
def test_a_shard_without_one_of_its_files_counts_as_unfinished(store: ShardStore, lost: str) -> None:
    (store.folder / lost).unlink()
    assert store.finished_rows(NAME) is None


def test_the_product_holds_the_planned_shards_and_nothing_else(store: ShardStore, tmp_path: Path) -> None:
    store.keep(*shard("synthetic-00007.tar"))  # left over, not part of the plan
    store.assemble([NAME], tmp_path / "product")
    assert [path.name for path in (tmp_path / "product" / "shards").iterdir()] == [NAME]
    manifest = pq.read_table(tmp_path / "product" / "manifest.parquet")
    assert tuple(manifest.column_names) == SYNTHETIC_COLUMNS
    assert manifest.to_pylist() == shard()[1]


def test_rows_altered_after_they_were_kept_do_not_get_into_a_product(store: ShardStore, tmp_path: Path) -> None:
    write_manifest(shard(num_images=2)[1], store.folder / f"{NAME}.rows.parquet")
    with pytest.raises(ValueError, match=r"synthetic-00000.tar.rows.parquet was altered while the stage ran"):
        store.assemble([NAME], tmp_path / "product")


def test_rows_are_found_by_their_number_in_a_product_of_several_shards(store: ShardStore, tmp_path: Path) -> None:
    names = [NAME, "synthetic-00001.tar", "synthetic-00002.tar", "synthetic-00003.tar"]
    for name, num_images in zip(names[1:], (4, 5, 6), strict=True):
        store.keep(*shard(name, num_images))
    store.assemble(names, tmp_path / "product")
    chosen = rows_at(tmp_path / "product" / "manifest.parquet", np.array([2, 3, 6, 12, 17]))  # none of the third
    assert [(row["shard"], row["image_id"]) for row in chosen] == [
        (NAME, "abc-0002"),
        ("synthetic-00001.tar", "abc-0000"),
        ("synthetic-00001.tar", "abc-0003"),
        ("synthetic-00003.tar", "abc-0000"),
        ("synthetic-00003.tar", "abc-0005"),
    ]
