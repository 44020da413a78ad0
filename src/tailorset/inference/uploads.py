"""Checks of an upload before anything is decoded, so that a small file cannot cost much."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from PIL.Image import DecompressionBombError

from tailorset.images.codec import HEIC, container_kind, read_size
from tailorset.messages import MIB

MAX_BODY_BYTES = 10 * MIB
MAX_PIXELS = 25_000_000
MAX_PARTS = 5000  # Pillow reads chunks and segments in a slow loop; 10 MiB have 2,600 chunks of 4 KiB
MAX_SCANS = 50  # each costs a pass over the whole picture; a progressive JPEG has about ten
SIGNATURES = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "WEBP": b"RIFF"}
MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp")
KINDS = "JPEG, PNG or WebP"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd8]")  # of a segment: no stuffed byte, padding, restart or start of image


class Refusal(Exception):
    """A request that is not answered: an HTTP status, one line for the sender, and when to try again."""

    def __init__(self, status: int, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.retry_after_s = status, text, retry_after_s


def check_upload(content: bytes) -> None:
    """Refuse a file that is not a JPEG, PNG or WebP of at most MAX_PIXELS by its header. Nothing is decoded.

    Raises:
        Refusal: 400 empty or damaged, 413 too many pixels or passes, 415 another kind of file.
    """
    if not content:
        raise Refusal(400, f"The file is empty: send the bytes of a {KINDS} file.")
    kind = next((name for name, start in SIGNATURES.items() if content.startswith(start)), None)
    if kind is None or (kind == "WEBP" and content[8:12] != b"WEBP"):
        raise Refusal(415, f"{_other_kind(content)}: send it as {KINDS}.")
    if next(islice(_parts(content, kind), MAX_PARTS, None), None):
        raise Refusal(413, f"The {kind} is stored in too many parts: at most {MAX_PARTS} are read.")
    width, height = _size(content, kind)
    if width * height > MAX_PIXELS:
        raise Refusal(
            413, f"The image has {width} x {height} pixels: at most {MAX_PIXELS / 1e6:.0f} million are decoded."
        )
    if kind == "JPEG" and next(islice(_scans(content), MAX_SCANS, None), None):
        raise Refusal(413, f"The JPEG is stored in too many scans: at most {MAX_SCANS} are decoded.")


@contextmanager
def row_named(number: int) -> Iterator[None]:
    """Put the number of an image's row in front of the message of its error."""
    try:
        yield
    except Refusal as refusal:
        raise Refusal(refusal.status, f"row {number}: {refusal.text}", refusal.retry_after_s) from None
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from None


def file_bytes(content: object) -> bytes:
    """Return a file's bytes, given as bytes or as base64 text, which may be wrapped or a data URL.

    Raises:
        ValueError: neither of them.
    """
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    if not isinstance(content, str):
        raise ValueError(f"this is {type(content).__name__}: send a file's bytes, or their base64 as text.")
    text = "".join(content.split())
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
        raise ValueError(f"this text is not valid base64 ({error}): send a file's bytes, base64-encoded.") from None


def damaged(content: bytes) -> Refusal:
    """Return the refusal of a file that begins like an image and cannot be decoded."""
    return Refusal(400, f"The image is damaged or incomplete: {len(content):,} bytes that cannot be decoded.")


def _other_kind(content: bytes) -> str:
    if kind := container_kind(content):
        origin = ", as iPhones take them" if kind == HEIC else ""
        return f"This is a photo in {kind} format{origin}, which is not read here"
    return f"This is not a photo that can be read here (its first bytes are {content[:8].hex(' ')})"


def _parts(content: bytes, kind: str) -> Iterator[int]:
    """Yield the start of each chunk of a PNG, or of each segment and byte of padding before a JPEG's picture."""
    position = len(SIGNATURES["PNG"]) if kind == "PNG" else 2
    end = 0 if kind == "WEBP" else len(content) - 4
    while position <= end:
        yield position
        if kind == "PNG":
            position += 12 + int.from_bytes(content[position : position + 4], "big")
            continue
        mark, code = content[position], content[position + 1]
        if (mark, code) == (0xFF, 0xDA):
            return
        if mark != 0xFF or code in (0x00, 0xFF):
            position += 1
        elif code == 0x01 or 0xD0 <= code <= 0xD9:  # markers without a length
            position += 2
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")


def _scans(content: bytes) -> Iterator[int]:
    """Yield the start of each scan of a JPEG, up to the picture's end: a film or anything else may follow it."""
    position = 2
    while found := _MARKER.search(content, position):
        position, code = found.end(), content[found.end() - 1]
        if code == 0xD9:
            return
        if code == 0xDA:
            yield position
        if code != 0x01:
            position += int.from_bytes(content[position : position + 2], "big")


def _size(content: bytes, kind: str) -> tuple[int, int]:
    try:
        return read_size(content, kind)
    except DecompressionBombError as error:
        raise Refusal(413, f"The image is too large to be decoded: {error}") from None
    except ValueError:
        raise damaged(content) from None
