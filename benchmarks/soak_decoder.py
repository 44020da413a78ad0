"""Stress test of `decode_image`: a file with a mutated header is decoded if Pillow can show it, else a ValueError."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mutations import header_mutated
from PIL import Image
from tqdm import tqdm

from tailorset.images.codec import FORMATS, decode_image
from tailorset.messages import first_line

MAX_PIXELS = 1_000_000  # a header may declare gigabytes, which would only take time


@dataclass
class Decoded:
    """num_shown: files that Pillow can show; faults: files with a wrong answer."""

    num_files: int = 0
    num_shown: int = 0
    faults: list[str] = field(default_factory=list)


def decode_mutated(seed: int, numbers: Iterable[int]) -> Decoded:
    """Decode one file per number, the same ones for the same seed."""
    found = Decoded()
    with _small_pictures_only():
        for number in tqdm(numbers, desc="mutated headers", disable=None):
            content = header_mutated(seed, number)
            size = size_shown(content)
            found.num_files += 1
            found.num_shown += size is not None
            if fault := fault_of(content, size):
                found.faults.append(f"file {number}: {fault}"[:300])
    return found


def size_shown(content: bytes) -> tuple[int, int] | None:
    """The picture's size if Pillow can show it, regardless of EXIF."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            image.load()
            return image.convert("RGB").size
    except Exception:  # noqa: BLE001 - this is what the question is about
        return None


def fault_of(content: bytes, size: tuple[int, int] | None) -> str:
    """Fault of the decoder's answer, "" if there is none. size: see `size_shown`."""
    try:
        image = decode_image(content)
    except ValueError as error:
        return f"can be shown and is refused: {error}" if size else ""
    except Exception as error:  # noqa: BLE001 - this is what the question is about
        return first_line(error)
    right = image.mode == "RGB" and size in (None, image.size, image.size[::-1])
    return "" if right else f"a picture of {size} is decoded as {image.mode} of {image.size}"


@contextmanager
def _small_pictures_only() -> Iterator[None]:
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
