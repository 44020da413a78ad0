"""Files of the stage: the ledger in its resume folder, and the table of prompts that it makes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from tailorset.prompts.writer import Ledger
from tailorset.records import PROMPT_COLUMNS, Prompt
from tailorset.storage.files import atomic_output

COLUMN_TYPES = {"labels": pa.list_(pa.string()), "attempt": pa.int64()}  # the rest are strings
SCHEMA = pa.schema([(column, COLUMN_TYPES.get(column, pa.string())) for column in PROMPT_COLUMNS])


def read_ledger(path: Path) -> Ledger:
    """Return the ledger of an interrupted run, or a new one.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.exists():
        return Ledger()
    try:
        return Ledger.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is damaged ({error.error_count()} faults): delete it to start again") from error


def save_ledger(ledger: Ledger, path: Path) -> None:
    with atomic_output(path) as partial:
        partial.write_text(ledger.model_dump_json(), encoding="utf-8")


def read_captions(path: Path) -> dict[str, str]:
    """Return the captions of an interrupted run, {image_id: caption}, or none.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it to start again") from error


def save_prompts(prompts: Sequence[Prompt], path: Path) -> None:
    """Write the table that `records.read_prompts` reads."""
    table = pa.Table.from_pylist([prompt.model_dump() for prompt in prompts], schema=SCHEMA)
    with atomic_output(path) as partial:
        pq.write_table(table, partial)
