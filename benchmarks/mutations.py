"""Invalid image files: cut off, changed, with a false size, or two faults at once.

Everything is drawn from (seed, number): the same number always gives the same file.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import numpy as np
from PIL import Image
from PIL.TiffTags import TAGS_V2

from tailorset.messages import MIB
from tailorset.seeding import numpy_rng

BOMB_PX = 60_000
ORIENTATION = 0x0112
TURNED = (ORIENTATION, 3, b"\0\6")  # as EXIF requires: a quarter turn
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # of TIFF's types
Mutation = Callable[[bytes, np.random.Generator], bytes]


@cache
def originals() -> dict[str, bytes]:
    """A small valid file of each kind that cameras, scanners and browsers write."""
    rng = np.random.default_rng(0)
    rgb = _picture()
    deep = Image.fromarray(rng.integers(0, 65536, (48, 64), dtype=np.uint16))
    frames = [rgb.rotate(angle) for angle in (90, 180)]
    exif = rgb.getexif()
    exif[ORIENTATION] = 6
    return {
        "jpeg": _saved(rgb, "JPEG", exif=exif),
        "progressive": _saved(rgb, "JPEG", progressive=True),
        "cmyk": _saved(rgb.convert("CMYK"), "JPEG"),
        "grey": _saved(rgb.convert("L"), "JPEG"),
        "png": _saved(rgb, "PNG"),
        "16 bit": _saved(deep, "PNG"),
        "16 bit colour": deep_colour_png(),
        "palette": _saved(rgb.convert("P"), "PNG"),
        "transparent": _saved(rgb.convert("RGBA"), "PNG"),
        "animated png": _saved(rgb, "PNG", save_all=True, append_images=frames),
        "webp": _saved(rgb.convert("RGBA"), "WEBP"),
        "lossless webp": _saved(rgb, "WEBP", lossless=True),
        "animated webp": _saved(rgb, "WEBP", save_all=True, append_images=frames, duration=50),
        "gif": _saved(rgb, "GIF", save_all=True, append_images=frames),
        "tiff": _saved(rgb, "TIFF"),
        "bmp": _saved(rgb, "BMP"),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/"/></svg>',
    }


def mutated(seed: int, number: int) -> bytes:
    """The number-th file: an original with none to two mutations."""
    rng = numpy_rng(seed, "mutation", number)
    files, ways = list(originals().values()), list(MUTATIONS.values())
    content = files[rng.integers(len(files))]
    for _ in range(rng.choice([0, 1, 2], p=[0.1, 0.6, 0.3])):
        content = ways[rng.integers(len(ways))](content, rng)
    return content


def header_mutated(seed: int, number: int) -> bytes:
    """The number-th file of another series: a valid picture behind an invalid header, mostly EXIF."""
    rng = numpy_rng(seed, "header", number)
    files = [*originals().values(), _saved(_picture(), "AVIF"), *[exif_photo(_any_entries(rng))] * len(originals())]
    content = files[rng.integers(len(files))]
    if rng.random() < 0.2:
        return content
    starts = [at for mark in (b"\xff\xda", b"IDAT", b"VP8 ", b"mdat") if (at := content.find(mark)) > 0]
    length = min([*starts, 400, len(content)])
    ways = [_change, _change_head, _change, _insert, _repeat, _remove]
    return ways[rng.integers(len(ways))](content[:length], rng) + content[length:]


def exif_photo(entries: Iterable[tuple[int, int, bytes]]) -> bytes:
    """A JPEG of 64 x 48 with any EXIF entries (tag, type, value).

    Source: TIFF 6.0, section 2: an image file directory.
    """
    rows = sorted(entries)
    directory, values, start = b"", b"", 8 + 2 + 12 * len(rows) + 4
    for tag, kind, value in rows:
        directory += struct.pack(">HHL", tag, kind, max(1, len(value) // TYPE_BYTES.get(kind, 1)))
        directory += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(">L", start + len(values))
        values += value if len(value) > 4 else b""
    content = b"Exif\0\0MM\0*" + struct.pack(">LH", 8, len(rows)) + directory + bytes(4) + values
    return _saved(_picture(), "JPEG", exif=content)


def deep_colour_png() -> bytes:
    """16 bits per channel, which Pillow reads and cannot write."""
    rows = b"".join(b"\0" + bytes(range(6 * 8)) for _ in range(8))
    return _png(8, 8, depth=16, colour=2, data=zlib.compress(rows))


def size_bombs() -> dict[str, bytes]:
    """Small files whose headers declare BOMB_PX x BOMB_PX pixels, or as many as the format can."""
    jpeg = bytearray(originals()["jpeg"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", BOMB_PX, BOMB_PX)
    side = (16383).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + side + side
    picture = originals()["lossless webp"][12:]
    webp = b"RIFF" + struct.pack("<I", 4 + len(extended) + len(picture)) + b"WEBP" + extended + picture
    return {"png": _png(BOMB_PX, BOMB_PX), "jpeg": bytes(jpeg), "webp": webp}


def scan_bomb(scans: int = 2000, px: int = 4000) -> bytes:
    """A progressive JPEG in which one scan over the whole picture is repeated."""
    content = _saved(Image.new("L", (px, px)), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + content[-2:]


def text_bomb() -> bytes:
    """A PNG with a compressed comment of 64 MiB."""
    comment = b"Comment\0\0" + zlib.compress(bytes(64 * MIB))
    content = originals()["png"]
    return content[:33] + _chunk(b"zTXt", comment) + content[33:]


def floods(num_bytes: int = 9_900_000) -> dict[str, bytes]:
    """Files of almost nothing, repeated many times."""
    png, jpeg = originals()["png"], originals()["jpeg"]
    data = png.index(b"IDAT") - 4
    empty = {kind: _chunk(kind, b"") for kind in (b"tEXt", b"IDAT")}
    return {
        "text chunks": png[:33] + empty[b"tEXt"] * (num_bytes // 12) + png[33:],
        "data chunks": png[:data] + empty[b"IDAT"] * (num_bytes // 12) + png[data:],
        "segments": jpeg[:2] + b"\xff\xe9\0\2" * (num_bytes // 4) + jpeg[2:],
        "padding": jpeg[:2] + b"\xff" * num_bytes + jpeg[2:],
        "junk": jpeg[:2] + bytes(num_bytes) + jpeg[2:],
        "restarts": jpeg[:2] + b"\xff\xd0" * (num_bytes // 2) + jpeg[2:],
    }


def polyglots() -> Iterator[bytes]:
    """Images that are also a zip, a page, a pickle or a PDF."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__main__.py", "raise SystemExit(3)")
    others = (archive.getvalue(), b"<script>alert(1)</script>", pickle.dumps(print), b"%PDF-1.7\n%%EOF")
    for image in (originals()["jpeg"], originals()["png"]):
        for other in others:
            yield image + other
            yield other + image


def _truncate(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content) + 1)]


def _change(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for position in rng.integers(0, max(1, len(content)), 1 + len(content) // 200):
        changed[position : position + 1] = rng.bytes(1)
    return bytes(changed)


def _change_head(content: bytes, rng: np.random.Generator) -> bytes:
    return _change(content[:64], rng) + content[64:]


def _insert(content: bytes, rng: np.random.Generator) -> bytes:
    at = rng.integers(len(content) + 1)
    return content[:at] + rng.bytes(int(rng.integers(1, 400))) + content[at:]


def _repeat(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(0, len(content) + 1, 2))
    return content[:stop] + content[start:stop] * rng.integers(1, 20) + content[stop:]


def _remove(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(0, len(content) + 1, 2))
    return content[:start] + content[stop:]


def _other_head(content: bytes, rng: np.random.Generator) -> bytes:
    other = list(originals().values())[rng.integers(len(originals()))]
    return other[: rng.integers(4, 40)] + content


def _bomb(_: bytes, rng: np.random.Generator) -> bytes:
    return list(size_bombs().values())[rng.integers(3)]


def _polyglot(_: bytes, rng: np.random.Generator) -> bytes:
    files = list(polyglots())
    return files[rng.integers(len(files))]


MUTATIONS: dict[str, Mutation] = {
    "truncate": _truncate,
    "change": _change,
    "change head": _change_head,
    "insert": _insert,
    "repeat": _repeat,
    "remove": _remove,
    "other head": _other_head,
    "size bomb": _bomb,
    "polyglot": _polyglot,
}


def _any_entries(rng: np.random.Generator) -> list[tuple[int, int, bytes]]:
    """EXIF entries of known and unknown tags, of any type, with values that may fit neither."""
    tags = rng.choice(sorted(TAGS_V2), rng.integers(1, 6))
    return [TURNED, *((int(tag), int(rng.integers(14)), rng.bytes(int(rng.integers(1, 40)))) for tag in tags)]


@cache
def _picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _png(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", data or zlib.compress(bytes(1000))) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
