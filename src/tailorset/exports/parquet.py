"""Hugging Face parquet: `image` (Image), `labels` and `absent` (lists of ClassLabel), scores and origin.

Read it with `datasets.load_dataset(FOLDER)`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tailorset.exports import ExportedImage, ExportedSet
from tailorset.exports.parts.files import HUB_SPLITS, write_hub_page
from tailorset.records import Split

GROUP_BYTES = 16 << 20  # pictures in memory at once
NUMBERS = {"width": pa.int32(), "height": pa.int32()}
TEXTS = ("image_id", "source", "sha256", "scored_by", "prompt_id", "prompt", "seed")
LISTS = ("labels", "absent", "predicted", "requested")
CONFIDENCES = ("confidence", "judge_confidence")


def place(image_id: str, split: Split, part: int) -> str:
    """Return the file of an image."""
    return f"data/{HUB_SPLITS[split]}-{part:05d}.parquet"


def write_images(folder: Path, labels: tuple[str, ...], images: Iterable[tuple[ExportedImage, bytes]]) -> None:
    """Write a file, group by group of rows."""
    writer, rows, size = None, [], 0
    columns = schema(labels)
    number = {label: index for index, label in enumerate(labels)}
    try:
        for image, content in images:
            if writer is None:
                (folder / image.file).parent.mkdir(parents=True, exist_ok=True)
                writer = pq.ParquetWriter(folder / image.file, columns)
            rows.append(_row(image, content, number))
            size += len(content)
            if size > GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(rows, schema=columns))
                rows, size = [], 0
        if writer and rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=columns))
    finally:
        if writer:
            writer.close()


def write_labels(folder: Path, exported: ExportedSet) -> None:
    """Write the page that names the splits; the labels are in the files already."""
    write_hub_page(folder, {split: f"data/{HUB_SPLITS[split]}-*.parquet" for split in exported.splits})


def schema(labels: tuple[str, ...]) -> pa.Schema:
    """Return the columns, with the features that `datasets` reads from the metadata."""
    class_label = {"names": list(labels), "_type": "ClassLabel"}
    scores = pa.list_(pa.struct([("label", pa.int64()), ("probability", pa.float32())]))
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    for name in LISTS:
        features[name] = {"feature": class_label, "_type": "List"}
        fields.append(pa.field(name, pa.list_(pa.int64())))
    features["scores"] = {"feature": {"label": class_label, "probability": _value("float32")}, "_type": "List"}
    fields.append(pa.field("scores", scores))
    kinds = dict.fromkeys(TEXTS, pa.string()) | NUMBERS | dict.fromkeys(CONFIDENCES, pa.float64())
    for name, kind in kinds.items():
        features[name] = _value({"double": "float64"}.get(str(kind), str(kind)))
        fields.append(pa.field(name, kind))
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _value(kind: str) -> dict[str, str]:
    return {"dtype": kind, "_type": "Value"}


def _row(image: ExportedImage, content: bytes, number: dict[str, int]) -> dict[str, object]:
    row = image._asdict() | {"image": {"bytes": content, "path": f"{image.image_id}.png"}}
    row |= {name: [number[label] for label in row[name] or ()] for name in LISTS}
    row["scores"] = [{"label": number[label], "probability": value} for label, value in image.scores.items()]
    return row
