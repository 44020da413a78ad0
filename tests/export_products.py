"""Products of the stages as `export-data` reads them, made in a moment: any labels, any number of images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from tailorset.exports import ExportedImage, Format
from tailorset.exports.parts.croissant import Activity, Agent, Description
from tailorset.exports.parts.run import run_export
from tailorset.exports.parts.source import ExportSource, PhotoScores
from tailorset.generation.shard_store import MANIFEST_SCHEMA
from tailorset.images.codec import encode_png
from tailorset.plugins import EXPORTS, load_plugin
from tailorset.storage.shards import sha256, write_shard

UNSEEN = ("umbrella", "clock", "boat", "key")
SEEN = ("ball", "car")
ODD = ("a/b", "c, d", 'e "f"', "fish 🐟", "two\nlines", "it's", "<&>", "ünï")  # no label file has most of these
MENTION = "number 7\n"
SHARD_SIZE, IMAGES_PER_PROMPT = 40, 3
DESCRIPTION = Description(
    name="tailorset-test",
    text="A set of a test.",
    version="1.0.0",
    licences=["Apache-2.0"],
    usage=["commercial use is allowed"],
    activities=[Activity("generate images", {"steps": 5}, [Agent("image generator", "model", {"version": "1"})])],
    rai={"dataBiases": ["none known"], "dataCollection": "drawn"},
)


def make_products(
    folder: Path,
    num_generated: int = 60,
    num_photos: int = 0,
    unseen: tuple[str, ...] = UNSEEN,
    seen: tuple[str, ...] = SEEN,
    image_px: int = 6,
    kept_share: float = 0.7,
) -> ExportSource:
    """Write the tables and shards of a run to `folder`; photos are divided evenly into the three splits."""
    data = folder / "data"
    rows = list(_generated(data / "synthetic", num_generated, unseen, image_px))
    _write(data / "synthetic" / "manifest.parquet", rows, MANIFEST_SCHEMA)
    _write(data / "filtered" / "manifest.parquet", [_decision(row, at, kept_share) for at, row in enumerate(rows)])
    labels = (*unseen, *seen)
    if num_photos:
        photos, targets = zip(*_photos(data / "real", num_photos, labels, unseen, image_px), strict=True)
        _write(data / "real" / "manifest.parquet", list(photos))
        _write(data / "real" / "targets.parquet", list(targets))
        _write(folder / "reports" / "evaluate" / "scores.parquet", list(_scores(photos, labels)))
        (folder / "models").mkdir(exist_ok=True)
        (folder / "models" / "thresholds.json").write_text("{}")
    return ExportSource(
        labels=labels,
        unseen=unseen,
        may_show=may_show,
        label_digest="of a test",
        synthetic=data / "synthetic",
        filtered=data / "filtered",
        real=data / "real" if num_photos else None,
        scores=PhotoScores(
            folder / "reports" / "evaluate" / "scores.parquet", "ours", decide, folder / "models" / "thresholds.json"
        )
        if num_photos
        else None,
    )


def may_show(text: str) -> set[str]:
    """Take a number in a prompt for the name of a label."""
    return {UNSEEN[0]} if MENTION in text else set()


def decide(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Take scores for probabilities."""
    return scores, scores >= 0.5


def export(name: str, source: ExportSource, output: Path, **options: Any) -> Path:
    """Export, and return the folder."""
    run_export(name, format_named(name), source, output, DESCRIPTION, **options)
    return output


def peak_of_export(name: str, source: ExportSource, output: Path) -> float:
    """Export, and return the MiB of memory that this process has used at most so far."""
    export(name, source, output, part_size=100)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would be that of the process that started this one
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def format_named(name: str) -> Format:
    """Return the module of a format."""
    module: Any = load_plugin(EXPORTS, name)
    return module


def exported(source: ExportSource) -> dict[str, tuple[ExportedImage, bytes]]:
    """Return every image of a source with its PNG bytes, by its id."""
    images = (one for split in source.splits for one in source.images(split))
    return {image.image_id: (image, content) for image, content in source.contents(images)}


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()) for path in files}


def _generated(folder: Path, number: int, unseen: tuple[str, ...], image_px: int) -> Iterator[dict[str, Any]]:
    ids = iter(range(number))
    for shard in range(-(-number // SHARD_SIZE)):
        samples, rows = [], []
        for at in islice(ids, SHARD_SIZE):
            content, prompt_id = _png(at, image_px), f"{at // IMAGES_PER_PROMPT:016x}"
            requested = [unseen[at % len(unseen)], unseen[at // len(unseen) % len(unseen)]]
            logits = np.random.default_rng(at).normal(0, 3, 2 * len(unseen)).astype("float32").tolist()
            row = {
                "image_id": f"{prompt_id}-{at % IMAGES_PER_PROMPT:04d}",
                "prompt_id": prompt_id,
                "prompt": f'a "quoted" thing, number {int(prompt_id, 16)}\non a lawn',
                "labels": sorted(set(requested)),
                "seed": 4197110291620960182 + at,
                "shard": f"synthetic-{shard:05d}.tar",
                "sha256": sha256(content),
                "width": image_px,
                "height": image_px,
                "pixel_mean": 0.5,
                "pixel_std": 0.3,
                "discriminator_logits": logits[: len(unseen)],
                "judge_logits": logits[len(unseen) :],
            }
            rows.append(row)
            samples.append((row["image_id"], content))
        write_shard(folder / "shards" / f"synthetic-{shard:05d}.tar", samples)
        yield from rows


def _decision(row: dict[str, Any], at: int, share: float) -> dict[str, Any]:
    kept = np.random.default_rng([1, at]).random() < share
    decision = {"kept": bool(kept), "labels": row["labels"] if kept else [], "reason": "kept" if kept else "weak"}
    told = {"confidence": 0.75, "reviewed": []}
    return {key: row[key] for key in ("image_id", "shard", "sha256", "prompt")} | decision | told


def _photos(
    folder: Path, number: int, labels: tuple[str, ...], unseen: tuple[str, ...], image_px: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    each = number // 3
    for split in ("train", "val", "test"):
        samples = []
        for at in range(each):
            content, image_id = _png(10**6 * len(split) + at + ord(split[0]), image_px), f"{split}-{at:06d}"
            samples.append((image_id, content))
            row = {"image_id": image_id, "split": split, "shard": f"{split}-00000.tar", "sha256": sha256(content)}
            shown = {label: (at + column) % 3 == 0 for column, label in enumerate(labels)}
            known = labels if split != "train" else tuple(label for label in labels if label not in unseen)
            targets = {label: int(shown[label]) if label in known else -1 for label in labels}
            size = {"width": image_px, "height": image_px, "pixel_mean": 0.5, "pixel_std": 0.3}
            yield row | size, {"image_id": image_id, **targets}
        write_shard(folder / "shards" / f"{split}-00000.tar", samples)


def _scores(photos: tuple[dict[str, Any], ...], labels: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    ids = [photo["image_id"] for photo in photos if photo["split"] == "test"]
    for method in ("clip", "ours"):
        values = torch.rand(len(ids), len(labels), generator=torch.Generator().manual_seed(len(method))).tolist()
        for image_id, row in zip(ids, values, strict=True):
            yield {"method": method, "image_id": image_id, **dict(zip(labels, row, strict=True))}


def _png(number: int, image_px: int) -> bytes:
    return encode_png(np.random.default_rng(number).integers(0, 256, (image_px, image_px, 3), dtype=np.uint8))


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
