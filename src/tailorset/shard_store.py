"""Finished shards of an unfinished generation: what lies here whole is not drawn again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tailorset.generation import MANIFEST_SCHEMA, Row, Shard
from tailorset.integrity import file_digest
from tailorset.shards import write_shard
from tailorset.storage import place_shards, whole_file

log = logging.getLogger(__name__)


class ShardStore:
    """Finished shards in the resume folder or in storage: the tar, its rows and, last, the checksums of both."""

    def __init__(self, folder: Path):
        self.folder = folder

    def finished_rows(self, name: str) -> list[Row] | None:
        """Rows of a shard that lies here whole; None if it does not: not written, cut off or altered."""
        if not self._seal(name).exists():
            return None
        if self._seal(name).read_bytes() != self._found(name):
            log.warning("%s or its rows differ from their sha256: it will be drawn again", self._tar(name))
            return None
        return self._table(name).to_pylist()

    def keep(self, shard: Shard) -> None:
        assert shard.samples is not None
        tar, rows = self._tar(shard.name), self._rows(shard.name)
        seal = self._sealed(shard.name, write_shard(tar, shard.samples), write_manifest(shard.rows, rows))
        with whole_file(self._seal(shard.name)) as file:
            file.write_bytes(seal)

    def assemble(self, names: Sequence[str], folder: Path) -> None:
        """Make `folder` the product of these shards: their manifest, and they themselves or a note where they lie."""
        folder.mkdir(parents=True)
        with pq.ParquetWriter(folder / "manifest.parquet", MANIFEST_SCHEMA) as manifest:
            for name in names:  # one at a time: with a thousand labels the rows of a long run fill a memory
                manifest.write_table(self._table(name))
        place_shards(self.folder, names, folder)

    def _table(self, name: str) -> pa.Table:
        with self._rows(name).open("rb") as rows:
            return pq.read_table(rows, schema=MANIFEST_SCHEMA)

    def _tar(self, name: str) -> Path:
        return self.folder / name

    def _rows(self, name: str) -> Path:
        return self.folder / f"{name}.rows.parquet"

    def _seal(self, name: str) -> Path:
        return self.folder / f"{name}.sha256"

    def _found(self, name: str) -> bytes:
        """The seal that the files would have that are there."""
        paths = (self._tar(name), self._rows(name))
        return self._sealed(name, *(file_digest(path) if path.exists() else "missing" for path in paths))

    def _sealed(self, name: str, tar: str, rows: str) -> bytes:
        """A seal's content, by the sha256 of both files."""
        return f"{tar}  {self._tar(name).name}\n{rows}  {self._rows(name).name}\n".encode()


def write_manifest(rows: list[Row], path: Path) -> str:
    """Returns the sha256 of what was written."""
    with whole_file(path) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA), file)
        return file_digest(file)
