"""GGUF files: a model's weights and tokenizer in one file, as llama.cpp reads it; the package gguf is optional."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

SUFFIX = ".gguf"
MAGIC = b"GGUF"
NO_READER = "the package gguf, which reads GGUF files, is not installed"
REMEDY = "`pip install --constraint constraints.txt --editable '.[gguf]'`, or name a model with safetensors weights"


def is_readable() -> bool:
    """Check that the package is installed."""
    return find_spec("gguf") is not None


def check_reader() -> None:
    """Raise ValueError with the remedy if the package is not installed."""
    if not is_readable():
        raise ValueError(f"{NO_READER}: {REMEDY}")


def check_magic(file: Path) -> None:
    """Check the first bytes of a file.

    Raises:
        ValueError: they are not those of a GGUF file.
    """
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{file} is not a GGUF file")
