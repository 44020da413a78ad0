"""Predict many photos: sources in, tables of scores and decisions out, in constant memory.

Shapes: N images of a batch, L labels.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from tailorset.compute.memory import ShrinkingBatches
from tailorset.inference.predictor import Predictor, answer_columns
from tailorset.inference.sources import Source, image_sources
from tailorset.inference.tables import prediction_file
from tailorset.messages import cause_of
from tailorset.progress import Bar

Read = tuple[str, Tensor | str]  # name, and pixels or an error
PATH, PRESENT, OPEN, ERROR = "path", "present", "open", "error"
TYPES = {float: pa.float32(), str: pa.string()}
MEMORY_REMEDY = "free the device's memory, or predict on the CPU (--device cpu)"
NUM_LISTED = 20  # failures listed at the end; the file has them all


@dataclass
class Summary:
    """Numbers of images and failures. failures: the first ones as "path: error", and the number of the rest."""

    num_images: int = 0
    num_failed: int = 0
    failures: tuple[str, ...] = ()


def predict_file(predictor: Predictor, paths: Iterable[Path], output: Path, batch_size: int) -> Summary:
    """Write the tables of all sources below the paths to a file, of the kind that its suffix names.

    Raises:
        ValueError: a path that does not exist, another suffix, or no readable image.
    """
    summary, paths = Summary(), tuple(paths)
    with prediction_file(output, schema(predictor)) as writer, Bar(desc="predict", unit=" images") as progress:
        for table in predict_tables(predictor, image_sources(paths, without=output), batch_size):
            writer.write_table(table)
            failed = [row for row in table.select([PATH, ERROR]).to_pylist() if row[ERROR] is not None]
            lines = tuple(f"{row[PATH]}: {row[ERROR]}" for row in failed)
            summary.num_images += len(table)
            summary.num_failed += len(failed)
            summary.failures = (summary.failures + lines)[:NUM_LISTED]
            progress.update(len(table))
        if summary.num_images == summary.num_failed:
            where = ", ".join(map(str, paths))
            raise ValueError("\n".join((*summary.failures, f"No image in {where} could be read: nothing was written.")))
    if more := summary.num_failed - len(summary.failures):
        summary.failures += (f"... and {more} more: the rows of {output} with an error",)
    return summary


def schema(predictor: Predictor) -> pa.Schema:
    """Return the columns: path; present labels, and those left open; the registered model's answer; error.

    Unknown values are null. A label left open is not among those present, as in the web service's answers.
    """
    lists = [pa.field(name, pa.list_(pa.string())) for name in (PRESENT, OPEN)]
    answers = [pa.field(name, TYPES[kind]) for name, kind in answer_columns(predictor.labels).items()]
    return pa.schema([pa.field(PATH, pa.string()), *lists, *answers, pa.field(ERROR, pa.string())])


def predict_tables(predictor: Predictor, sources: Iterable[Source], batch_size: int) -> Iterator[pa.Table]:
    """Yield one table per batch, one row per source in their order; see `schema`."""
    columns, fitting = schema(predictor), ShrinkingBatches(batch_size, "predicting", MEMORY_REMEDY)
    images = _read_ahead(predictor, sources, 2 * batch_size)
    while batch := list(islice(images, batch_size)):
        pixels = [content for _, content in batch if isinstance(content, Tensor)]
        rows = iter(_rows(predictor, torch.stack(pixels), fitting) if pixels else [])
        found = [next(rows) if isinstance(content, Tensor) else {ERROR: content} for _, content in batch]
        yield pa.Table.from_pylist(
            [{PATH: name} | row for (name, _), row in zip(batch, found, strict=True)], schema=columns
        )


def _rows(predictor: Predictor, pixels: Tensor, fitting: ShrinkingBatches) -> Iterator[dict[str, object]]:
    for _, looked in fitting.over(len(pixels), lambda part: predictor.look(pixels[part], len(pixels))):
        answers = predictor.answers(looked)
        for values in zip(*answers.values(), strict=True):
            row: dict[str, object] = dict(zip(answers, values, strict=True))
            for word in (PRESENT, OPEN):
                row[word] = [label for label in predictor.labels if row[f"decision/{label}"] == word]
            yield row


def _read_ahead(predictor: Predictor, sources: Iterable[Source], num_ahead: int) -> Iterator[Read]:
    """Decode in threads, at most `num_ahead` images before they are needed, in order."""
    waiting: deque[Future[Read]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for source in sources:
            waiting.append(pool.submit(_read, predictor, source))
            if len(waiting) > num_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(predictor: Predictor, source: Source) -> Read:
    try:
        return source.name, predictor.pixels(source.read())
    except (OSError, ValueError) as error:
        return source.name, " ".join(cause_of(error).split())
