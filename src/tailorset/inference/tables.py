"""Write tables of predictions to a file as they come: Parquet, CSV or JSON lines, never a half-written file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from tailorset.messages import unknown
from tailorset.storage.files import atomic_output

ROW_GROUP = 10_000
SEPARATOR = ";"  # of the labels in a CSV cell; no label's name contains one


class Writer(Protocol):
    """Write one table after the other."""

    def write_table(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class ParquetWriter:
    """Write row groups of ROW_GROUP rows: each costs memory until the file is closed."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.file = pyarrow.parquet.ParquetWriter(path, schema)
        self.waiting: list[pa.Table] = []

    def write_table(self, table: pa.Table) -> None:
        self.waiting.append(table)
        if sum(len(one) for one in self.waiting) >= ROW_GROUP:
            self._write()

    def close(self) -> None:
        if self.waiting:
            self._write()
        self.file.close()

    def _write(self) -> None:
        self.file.write_table(pa.concat_tables(self.waiting))
        self.waiting.clear()


class CsvWriter:
    """Write lists as one text, and nothing for a null."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        fields = [pa.field(field.name, pa.string()) if pa.types.is_list(field.type) else field for field in schema]
        self.schema = pa.schema(fields)
        self.file = pyarrow.csv.CSVWriter(path, self.schema)

    def write_table(self, table: pa.Table) -> None:
        columns = [pc.binary_join(c, SEPARATOR) if pa.types.is_list(c.type) else c for c in table.columns]
        self.file.write_table(pa.table(columns, schema=self.schema))

    def close(self) -> None:
        self.file.close()


class JsonLinesWriter:
    """Write one object per line, with every key."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.file = path.open("w", encoding="utf-8")

    def write_table(self, table: pa.Table) -> None:
        self.file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())

    def close(self) -> None:
        self.file.close()


WRITERS: dict[str, Callable[[Path, pa.Schema], Writer]] = {
    ".parquet": ParquetWriter,
    ".csv": CsvWriter,
    ".jsonl": JsonLinesWriter,
}


@contextmanager
def prediction_file(path: Path, schema: pa.Schema) -> Iterator[Writer]:
    """Yield a writer of the kind that the suffix names; `path` exists only once everything is written.

    Raises:
        ValueError: another suffix, or a folder of that name.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, which is never replaced: name a file")
    if path.suffix not in WRITERS:
        raise ValueError(unknown("suffix of an output file", path.suffix, WRITERS))
    with atomic_output(path) as partial:
        writer = WRITERS[path.suffix](partial, schema)
        try:
            yield writer
        finally:
            writer.close()
