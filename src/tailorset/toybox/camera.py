"""The look of photos and snapshots: clutter in the scene, light on it, the flaws of a camera."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from tailorset.toybox.shapes import Points, ellipse, polygon, stroke, turned

_TONES = (
    (96, 74, 58),
    (140, 132, 120),
    (70, 84, 70),
    (172, 150, 118),
    (92, 92, 108),
    (150, 100, 92),
)


Range = tuple[float, float]


@dataclass(frozen=True)
class Camera:
    """The ranges of what light and lens do; `cast` is the gain of each colour, `jpeg` None keeps every pixel.

    blur: radius at 64 px; slope: of the light across the image; vignette: what the corners lose; noise: grey levels.
    """

    slope: Range
    vignette: Range
    exposure: Range
    cast: Range
    noise: Range
    blur: Range | None = None
    jpeg: tuple[int, int] | None = None


GOOD = Camera(slope=(0.03, 0.2), vignette=(0.0, 0.15), exposure=(0.88, 1.06), cast=(0.95, 1.05), noise=(1, 5))
CHEAP = Camera(
    slope=(0.05, 0.3),
    vignette=(0.05, 0.22),
    exposure=(0.78, 1.08),
    cast=(0.88, 1.12),
    noise=(2, 9),
    blur=(0.15, 0.6),
    jpeg=(35, 75),
)


def draw_clutter(draw: ImageDraw.ImageDraw, side: int, num: int, rng: np.random.Generator) -> None:
    """Paint `num` shapes that are not labels: blobs, sticks, squiggles and shards."""
    for _ in range(num):
        shape = (_blob, _stick, _squiggle, _shard)[rng.integers(4)](rng)
        size = rng.uniform(0.05, 0.14)
        centre = rng.uniform(0, 1, 2)
        points = (turned(shape, rng.uniform(0, 360)) * size + centre) * side
        red, green, blue = _TONES[rng.integers(len(_TONES))] + rng.integers(-20, 21, 3)
        draw.polygon(points.ravel().tolist(), fill=(int(red), int(green), int(blue)))


def _blob(rng: np.random.Generator) -> Points:
    wobble = rng.uniform(0.6, 1.1, 22)[:, None]
    return ellipse(0, 0, 1) * (wobble + np.roll(wobble, 1, axis=0)) / 2


def _stick(rng: np.random.Generator) -> Points:
    half = rng.uniform(0.08, 0.16)
    return polygon((-1.6, -half), (1.6, -half), (1.6, half), (-1.6, half))


def _squiggle(rng: np.random.Generator) -> Points:
    x = np.linspace(-1.3, 1.3, 12)
    return stroke(np.stack([x, 0.5 * np.sin(x * rng.uniform(2, 4))], axis=1), 0.22)


def _shard(rng: np.random.Generator) -> Points:
    angles = np.sort(rng.uniform(0, 2 * np.pi, 4))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def expose(image: Image.Image, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Return an RGB image of the final size as the camera takes it."""
    if camera.blur:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(*camera.blur) * image.width / 64))
    pixels = np.asarray(image, np.float32) * _light(image.width, camera, rng)
    sigma = rng.uniform(*camera.noise)
    pixels += sigma * rng.standard_normal(pixels.shape, dtype=np.float32)
    noisy = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return _jpeg(noisy, int(rng.integers(camera.jpeg[0], camera.jpeg[1] + 1))) if camera.jpeg else noisy


def _light(side: int, camera: Camera, rng: np.random.Generator) -> NDArray[np.float32]:
    """Directional shading, vignette and colour cast as one (side, side, 3) gain around 1."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(*camera.slope)
    shading = 1 + slope * (np.cos(angle) * axis[None] + np.sin(angle) * axis[:, None])
    vignette = 1 - rng.uniform(*camera.vignette) * (axis[None] ** 2 + axis[:, None] ** 2) / 2
    cast = rng.uniform(*camera.exposure) * rng.uniform(*camera.cast, 3)
    gain = (shading * vignette)[..., None] * cast
    return gain.astype(np.float32)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
