"""Files outside the pipeline that a data set reads: whether they are still as they were read.

DVC knows the products of stages; photos and their annotations lie wherever the user keeps them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel

from tailorset.storage.checksums import file_digest
from tailorset.storage.paths import in_project
from tailorset.storage.photo_files import Unread, files_below

UserPath: TypeAlias = Annotated[Path, AfterValidator(in_project)]
RECORDS = Path(".work/inputs")  # of this machine: times of files mean nothing on another
TABLES = ("manifest.parquet", "targets.parquet")  # of the product; its shards are known by their digests


def state_of(*blocks: BaseModel) -> str:
    """A digest of names, sizes and times of all files, hidden ones aside, that a data set's settings lead to."""
    total = hashlib.sha256()
    for key, value in chain(*blocks):
        for found in files_below(value) if isinstance(value, Path) else ():
            path = found.path if isinstance(found, Unread) else found
            name = path.relative_to(value)
            if any(part.startswith(".") for part in name.parts):
                continue
            if isinstance(found, Unread):
                seen = found.reason
            else:
                status = path.stat()
                seen = f"{status.st_size}:{status.st_mtime_ns}"
            total.update(f"{key}/{name}:{seen}\n".encode(errors="surrogateescape"))
    return total.hexdigest()[:16]


def remember_state(root: Path, settings: Mapping[str, Any], product: Path, state: str) -> None:
    """Record the state of the files that a product was made from. Records of older products stay: DVC restores those.

    settings: those of the data set as params.yaml has them.
    """
    path = root / RECORDS / _digest(settings) / _product_digest(product)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(state, encoding="utf-8")


def has_changed(root: Path, settings: Mapping[str, Any], product: Path, *blocks: BaseModel) -> bool:
    """Check if files differ from those that the product was made from.

    If it was made with other settings, DVC may bring back any product that was made here with these.
    """
    records = root / RECORDS / _digest(settings)
    states = {path.name: path.read_text(encoding="utf-8") for path in records.glob("*")}
    if not states:
        return False
    now, made_of = state_of(*blocks), states.get(_product_digest(product))
    return made_of != now if made_of else set(states.values()) != {now}


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _product_digest(product: Path) -> str:
    digests = [file_digest(path) for name in TABLES if (path := product / name).is_file()]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
