"""Finished shards of an unfinished generation: what lies here whole is not drawn again."""

from __future__ import annotations

import logging
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
        if self._seal(name).read_bytes() != self._digests(name):
            log.warning("%s or its rows differ from their sha256: it will be drawn again", self._tar(name))
            return None
        with self._rows(name).open("rb") as rows:
            return pq.read_table(rows, schema=MANIFEST_SCHEMA).to_pylist()

    def keep(self, shard: Shard) -> None:
        assert shard.samples is not None
        tar, rows = self._tar(shard.name), self._rows(shard.name)
        lines = [self._line(write_shard(tar, shard.samples), tar), self._line(write_manifest(shard.rows, rows), rows)]
        with whole_file(self._seal(shard.name)) as file:
            file.write_bytes("".join(lines).encode())

    def assemble(self, rows: list[Row], folder: Path) -> None:
        """Make `folder` the product of `rows`: its manifest, and its shards or a note where in storage they lie."""
        folder.mkdir(parents=True)
        write_manifest(rows, folder / "manifest.parquet")
        place_shards(self.folder, dict.fromkeys(row["shard"] for row in rows), folder)

    def _tar(self, name: str) -> Path:
        return self.folder / name

    def _rows(self, name: str) -> Path:
        return self.folder / f"{name}.rows.parquet"

    def _seal(self, name: str) -> Path:
        return self.folder / f"{name}.sha256"

    def _digests(self, name: str) -> bytes:
        """What the seal of the files that are there would say."""
        return "".join(
            self._line(file_digest(path) if path.exists() else "missing", path)
            for path in (self._tar(name), self._rows(name))
        ).encode()

    @staticmethod
    def _line(digest: str, path: Path) -> str:
        return f"{digest}  {path.name}\n"


def write_manifest(rows: list[Row], path: Path) -> str:
    """Returns the sha256 of what was written."""
    with whole_file(path) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA), file)
        return file_digest(file)
