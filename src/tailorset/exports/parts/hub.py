"""Hugging Face's names of splits, its page, and tables whose columns have the types that `datasets` knows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tailorset.exports import ExportedImage
from tailorset.exports.parts.files import write_lines
from tailorset.records import Split

SPLITS: dict[Split, str] = {"train": "train", "val": "validation", "test": "test"}
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LISTS = ("labels", "absent", "predicted", "requested")  # of class labels
KINDS = {
    **dict.fromkeys(("image_id", "source", "sha256", "scored_by", "prompt_id", "prompt", "seed"), "string"),
    **dict.fromkeys(("width", "height"), "int32"),
    **dict.fromkeys(("confidence", "judge_confidence"), "float64"),
}
GROUP_BYTES, GROUP_ROWS = 16 << 20, 1000  # in memory at once


class HubTable:
    """Write a parquet file row by row. Its first column is the picture, or the file of it (is_inside: False)."""

    def __init__(self, path: Path, labels: tuple[str, ...], is_inside: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.columns, self.is_inside = _schema(labels, is_inside), is_inside
        self.numbers = {label: number for number, label in enumerate(labels)}
        self.writer = pq.ParquetWriter(path, self.columns)
        self.rows: list[dict[str, object]] = []
        self.size = 0

    def __enter__(self) -> HubTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self.writer.close()

    def add(self, image: ExportedImage, content: bytes = b"") -> None:
        """Add an image, with its PNG bytes where the picture is in the table."""
        name = f"{image.image_id}.png"
        first: dict[str, Any] = {"image": {"bytes": content, "path": name}} if self.is_inside else {"file_name": name}
        row = image._asdict() | first
        row |= {key: [self.numbers[label] for label in row[key] or ()] for key in LISTS}
        row["scores"] = [{"label": self.numbers[label], "probability": one} for label, one in image.scores.items()]
        self.rows.append(row)
        self.size += len(content)
        if self.size >= GROUP_BYTES or len(self.rows) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.columns))
        self.rows, self.size = [], 0


def write_table(path: Path, labels: tuple[str, ...], images: Iterable[ExportedImage]) -> None:
    """Write a table of pictures that are files next to it."""
    with HubTable(path, labels, is_inside=False) as table:
        for image in images:
            table.add(image)


def write_page(folder: Path) -> None:
    """Write the README.md. It lists no files: `datasets` finds the splits by their names, and where a list is given
    it takes the files of an earlier export of that path from its cache.
    """
    write_lines(folder / "README.md", ["croissant.json describes this data set: origin, licences and limits."])


def _schema(labels: tuple[str, ...], is_inside: bool) -> pa.Schema:
    """Return the columns, with the features that `datasets` reads from the metadata."""
    class_label = {"names": list(labels), "_type": "ClassLabel"}
    features: dict[str, Any] = {"image": {"_type": "Image"}} if is_inside else {"file_name": _value("string")}
    fields = [pa.field("image", PICTURE) if is_inside else pa.field("file_name", pa.string())]
    for name in LISTS:
        features[name] = {"feature": class_label, "_type": "List"}
        fields.append(pa.field(name, pa.list_(pa.int64())))
    features["scores"] = {"feature": {"label": class_label, "probability": _value("float32")}, "_type": "List"}
    scores = pa.struct([("label", pa.int64()), ("probability", pa.float32())])
    fields.append(pa.field("scores", pa.list_(scores)))
    for name, kind in KINDS.items():
        features[name] = _value(kind)
        fields.append(pa.field(name, pa.type_for_alias(kind)))
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _value(kind: str) -> dict[str, str]:
    return {"dtype": kind, "_type": "Value"}
