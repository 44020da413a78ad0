"""Finished shards of an unfinished generation: a shard that is stored whole is not drawn again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tailorset.generation.studio import Row, Samples
from tailorset.records import COPIES, PHOTO_COLUMNS, SYNTHETIC_COLUMNS
from tailorset.storage.checksums import file_digest
from tailorset.storage.location import place_shards, whole_file
from tailorset.storage.shards import sha256, write_shard

COLUMN_TYPES = {
    "labels": pa.list_(pa.string()),
    "seed": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "pixel_mean": pa.float64(),
    "pixel_std": pa.float64(),
    "discriminator_logits": pa.list_(pa.float32()),
    "judge_logits": pa.list_(pa.float32()),
    "photo_similarity": pa.float64(),
    COPIES: pa.bool_(),
}


def manifest_schema(*further: str) -> pa.Schema:
    """Return the columns of a manifest."""
    return pa.schema([(name, COLUMN_TYPES.get(name, pa.string())) for name in (*SYNTHETIC_COLUMNS, *further)])


MANIFEST_SCHEMA, PHOTO_SCHEMA = manifest_schema(), manifest_schema(*PHOTO_COLUMNS)
log = logging.getLogger(__name__)


class ShardStore:
    """Finished shards in the resume folder or in storage: the tar, its rows and, last, the checksums of both.

    from_photos: rows also name the photos that images start from.
    """

    def __init__(self, folder: Path, from_photos: bool = False) -> None:
        self.folder, self.schema = folder, PHOTO_SCHEMA if from_photos else MANIFEST_SCHEMA

    def finished_rows(self, name: str) -> list[Row] | None:
        """Return the rows of a shard, or None if it is not whole: not written, cut off or altered."""
        if not self._seal(name).exists():
            return None
        if self._seal(name).read_bytes() != self._found(name):
            log.warning("%s or its rows differ from their sha256: it will be drawn again", self._tar(name))
            return None
        with self._rows(name).open("rb") as rows:
            return pq.read_table(rows, schema=self.schema).to_pylist()

    def keep(self, name: str, rows: list[Row], samples: Samples) -> None:
        of_rows = write_manifest(rows, self._rows(name), self.schema)
        seal = self._sealed(name, write_shard(self._tar(name), samples), of_rows)
        with whole_file(self._seal(name)) as file:
            file.write_bytes(seal)

    def assemble(self, names: Sequence[str], folder: Path) -> None:
        """Make `folder` the product of these shards: their manifest, and the shards or a note of their address.

        Shards are read one by one: with a thousand labels the rows of a long run would fill the memory.

        Raises:
            ValueError: the rows of a shard differ from those that were kept.
        """
        folder.mkdir(parents=True)
        with pq.ParquetWriter(folder / "manifest.parquet", self.schema) as manifest:
            for name in names:
                content = self._rows(name).read_bytes()
                if not self._seal(name).read_bytes().endswith(self._line(sha256(content), self._rows(name))):
                    raise ValueError(f"{self._rows(name)} was altered while the stage ran: run it again")
                manifest.write_table(pq.read_table(pa.BufferReader(content), schema=self.schema))
        place_shards(self.folder, names, folder)

    def _tar(self, name: str) -> Path:
        return self.folder / name

    def _rows(self, name: str) -> Path:
        return self.folder / f"{name}.rows.parquet"

    def _seal(self, name: str) -> Path:
        return self.folder / f"{name}.sha256"

    def _found(self, name: str) -> bytes:
        """Return the seal of the files as they are now."""
        paths = (self._tar(name), self._rows(name))
        return self._sealed(name, *(file_digest(path) if path.exists() else "missing" for path in paths))

    def _sealed(self, name: str, tar: str, rows: str) -> bytes:
        """Return the content of a seal, by the sha256 of both files."""
        return self._line(tar, self._tar(name)) + self._line(rows, self._rows(name))

    @staticmethod
    def _line(digest: str, path: Path) -> bytes:
        return f"{digest}  {path.name}\n".encode()


def write_manifest(rows: list[Row], path: Path, schema: pa.Schema = MANIFEST_SCHEMA) -> str:
    """Write the rows, and return the sha256 of the file."""
    with whole_file(path) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
        return file_digest(file)
