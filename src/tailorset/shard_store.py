"""Finished shards of an unfinished generation: what lies here whole is not drawn again."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tailorset.generation import MANIFEST_SCHEMA, Row, Shard
from tailorset.shards import CorruptShardError, read_shard, sha256, write_shard

log = logging.getLogger(__name__)


class ShardStore:
    """Finished shards in the resume folder: the tar first, its rows after it, each written atomically."""

    def __init__(self, folder: Path):
        self.folder = folder

    def finished_rows(self, name: str) -> list[Row] | None:
        """Rows of a shard that lies here whole; None if it does not: not written, cut off or altered."""
        if not self._rows(name).exists():
            return None
        try:
            rows = pq.read_table(self._rows(name), schema=MANIFEST_SCHEMA).to_pylist()
            stored = [(image_id, sha256(png)) for image_id, png in read_shard(self._tar(name))]
        except (pa.ArrowException, OSError, CorruptShardError) as error:
            log.warning("%s is damaged and will be drawn again: %s", self._tar(name), error)
            return None
        if stored != [(row["image_id"], row["sha256"]) for row in rows]:
            log.warning("%s differs from the sha256 in its rows and will be drawn again", self._tar(name))
            return None
        return rows

    def keep(self, shard: Shard) -> None:
        assert shard.samples is not None
        write_shard(self._tar(shard.name), shard.samples)
        partial = self._rows(shard.name).with_suffix(".partial")
        write_manifest(shard.rows, partial)
        os.replace(partial, self._rows(shard.name))

    def assemble(self, rows: list[Row], folder: Path) -> None:
        """Copy the shards of `rows` to `folder`/shards and write its manifest."""
        (folder / "shards").mkdir(parents=True)
        for name in dict.fromkeys(row["shard"] for row in rows):
            shutil.copyfile(self._tar(name), folder / "shards" / name)
        write_manifest(rows, folder / "manifest.parquet")

    def _tar(self, name: str) -> Path:
        return self.folder / name

    def _rows(self, name: str) -> Path:
        return self.folder / f"{name}.rows.parquet"


def write_manifest(rows: list[Row], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA), path)
