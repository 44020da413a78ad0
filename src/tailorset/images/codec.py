"""Images as bytes and as pixels: the only place where image files are decoded.

Shapes: P x P pixels.
"""

from __future__ import annotations

import io
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no format that runs a program to decode
_KINDS = "avif bmp gif heic heif jfif jpeg jpg pgm png pnm ppm tif tiff webp"
SUFFIXES = tuple(f".{kind}" for kind in _KINDS.split())
MAX_FILE_BYTES = 256 << 20  # a video among the photos must not fill the memory
HEIC = "HEIC"  # read if the extra `heic` is installed
_BRANDS = {  # of the container that both formats share
    HEIC: (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
    "AVIF": (b"avif", b"avis"),
}
_LONGEST_BRANDS = 256
_TURNS = {  # Source: EXIF 2.32, tag 0x0112
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # only much larger images are an error


def file_content(path: Path) -> bytes:
    """Return the bytes of a photo's file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, or is too large for a photo.
    """
    if path.exists() and not path.is_file():
        raise ValueError("this is not a regular file")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise ValueError(f"{size >> 20} MiB is too large for a photo: at most {MAX_FILE_BYTES >> 20} MiB are read")
    return path.read_bytes()


def decode_image(content: bytes) -> Image.Image:
    """RGB image of any size from a file's bytes: EXIF rotation applied, transparency on white, 16 bit to 8.

    No other entry of EXIF is read, so faults in other entries do not matter.

    Raises:
        ValueError: the bytes are not a complete image of a known format.
    """
    is_heic = container_kind(content) == HEIC
    if is_heic:
        _enable_heic()
    try:
        with Image.open(io.BytesIO(content), formats=("HEIF",) if is_heic else FORMATS) as image:
            image.load()
            return upright_rgb(image)
    except Exception as error:  # Pillow's parsers raise nearly anything on files that are damaged or made up
        reason = "cannot be identified" if isinstance(error, UnidentifiedImageError) else str(error) or repr(error)
        raise ValueError(
            f"{len(content)} bytes starting with {content[:8]!r} are not a readable image ({reason});"
            f" give a complete file in one of {', '.join((*FORMATS, HEIC))}"
        ) from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an opened picture as `decode_image` does; one that was returned before stays as it is."""
    turn = _turn(image)
    upright = _as_rgb(image if turn is None else image.transpose(turn))
    upright.info = {}  # with the rotation that was applied
    return upright


def read_size(content: bytes, kind: str) -> tuple[int, int]:
    """Return width and height from the header of a file of one of FORMATS; nothing is decoded.

    Raises:
        DecompressionBombError: more pixels than Pillow ever decodes.
        ValueError: the header cannot be read.
    """
    try:
        with Image.open(io.BytesIO(content), formats=[kind]) as image:
            return image.size
    except Image.DecompressionBombError:
        raise
    except Exception as error:  # as above
        raise ValueError(f"the header of a {kind} cannot be read ({error})") from error


def container_kind(content: bytes) -> str | None:
    """HEIC or AVIF by the brands at the beginning of a file, None for anything else."""
    if content[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(content[:4], "big"), _LONGEST_BRANDS)
    brands = [content[8:12], *(content[at : at + 4] for at in range(16, end, 4))]
    return next((kind for brand in brands for kind, known in _BRANDS.items() if brand in known), None)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """PNG bytes of an (H, W, 3) or (H, W) uint8 image; equal pixels give equal bytes.

    zlib's level 1 takes a fifth of the time of its usual 6, and photos become an eighth larger.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"image is {image.dtype} in {image.shape}: give uint8 in [0, 255]")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def shrunk(image: Image.Image, image_px: int) -> Image.Image:
    """The image with a shorter side of at most `image_px`; its proportions stay."""
    factor = image_px / min(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def square_pixels(image: Image.Image, image_px: int) -> Tensor:
    """(3, P, P) uint8: an RGB image resized to a square, as every model here uses it."""
    from torchvision.transforms import InterpolationMode  # two seconds, which stages without images need not spend
    from torchvision.transforms.v2 import functional as tvf

    return tvf.resize(tvf.pil_to_tensor(image), [image_px, image_px], InterpolationMode.BICUBIC)


def _enable_heic() -> None:
    """Let Pillow read HEIC.

    Raises:
        ValueError: the library for it is not installed.
    """
    if not find_spec("pillow_heif"):
        raise ValueError(
            "this is a HEIC file, as iPhones take them, which needs pillow-heif: `pip install pillow-heif`, or convert"
            " it to JPEG"
        )
    import pillow_heif

    pillow_heif.register_heif_opener()


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Rotation that makes a picture upright; none if its EXIF cannot be read."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - entries of another type than their tag; the picture itself is in order
        return None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey levels of 16 or more bits in 0..65535, floats in 0..1; larger values saturate."""
    levels = grey.astype(np.float64) * (255.0 if grey.dtype.kind == "f" else 255.0 / 65535.0)
    return np.clip(np.rint(np.nan_to_num(levels)), 0, 255).astype(np.uint8)
