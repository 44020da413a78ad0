"""Files outside the pipeline that a data set reads: whether they are still as they were read.

DVC knows the products of stages; photographs and their annotations lie wherever the user keeps them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel

UserPath: TypeAlias = Annotated[Path, AfterValidator(Path.expanduser)]  # ~ is the user's home
RECORD = Path(".work/prepare_dataset.state")  # of this machine: times of files mean nothing on another


def state_of(config: BaseModel) -> str:
    """A digest of names, sizes and times of all files, hidden ones aside, that a data set's settings lead to."""
    total = hashlib.sha256()
    for _, value in config:
        for path in files_below(value) if isinstance(value, Path) else ():
            if any(part.startswith(".") for part in path.relative_to(value).parts):
                continue
            status = path.stat()
            total.update(f"{path}:{status.st_size}:{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return total.hexdigest()[:16]


def files_below(path: Path) -> Iterator[Path]:
    """The file itself, or all files in a folder and the folders below it, linked ones too, in order."""
    if path.is_file():
        yield path
    seen: set[str] = set()
    for folder, folders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (file for name in sorted(names) if (file := Path(folder, name)).is_file())


def remember_state(root: Path, config: BaseModel, state: str) -> None:
    path = root / RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{config.model_dump_json()}\n{state}", encoding="utf-8")


def has_changed(root: Path, config: BaseModel) -> bool:
    """Whether files differ from those that `prepare_dataset` last read here with these settings."""
    path = root / RECORD
    settings, _, state = path.read_text(encoding="utf-8").partition("\n") if path.exists() else ("", "", "")
    return settings == config.model_dump_json() and state != state_of(config)
