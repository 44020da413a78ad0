"""Backgrounds: named places, smooth in drawings and textured in snapshots; surfaces under snapshots and photos."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailorset.toybox.parts import RGB

Canvas = NDArray[np.uint8]  # (S, S, 3)
Grid = NDArray[np.float32]  # (S, S), the share of the second tone


@dataclass(frozen=True)
class Place:
    """A smooth background: a vertical gradient, or two zones when a horizon is given."""

    top: RGB
    bottom: RGB
    horizon: float | None = None  # height of the border as a fraction of the image from the top


@dataclass(frozen=True)
class Ground:
    """Background of a snapshot: one of TEXTURES in two tones."""

    texture: str
    tones: tuple[RGB, RGB]


BACKGROUNDS: dict[str, Place] = {
    "sky": Place((128, 196, 246), (206, 234, 252)),
    "grass": Place((206, 234, 252), (134, 204, 96), horizon=0.45),
    "sand": Place((248, 226, 176), (232, 200, 138)),
    "snow": Place((226, 234, 246), (250, 252, 255)),
    "night": Place((16, 20, 56), (44, 44, 96)),
    "sea": Place((212, 236, 248), (70, 150, 204), horizon=0.45),
    "wall": Place((240, 196, 204), (228, 176, 188)),
    "table": Place((240, 230, 210), (178, 126, 82), horizon=0.5),
}
GROUNDS: dict[str, Ground] = {  # of every place in BACKGROUNDS
    "sky": Ground("clouds", ((128, 196, 246), (216, 236, 252))),
    "grass": Ground("speckle", ((122, 192, 84), (92, 164, 66))),
    "sand": Ground("speckle", ((240, 214, 160), (214, 180, 120))),
    "snow": Ground("clouds", ((210, 222, 240), (250, 252, 255))),
    "night": Ground("speckle", ((16, 20, 56), (50, 52, 100))),
    "sea": Ground("wood", ((70, 150, 204), (116, 184, 222))),
    "wall": Ground("checks", ((240, 196, 204), (222, 168, 182))),
    "table": Ground("wood", ((184, 132, 86), (150, 100, 60))),
}
TEXTURES = ("stripes", "checks", "wood", "speckle", "clouds")
SURFACES: tuple[tuple[RGB, RGB], ...] = (
    ((150, 110, 74), (118, 82, 52)),
    ((120, 128, 126), (152, 158, 150)),
    ((92, 112, 86), (128, 142, 104)),
    ((196, 182, 160), (164, 148, 128)),
    ((84, 96, 122), (112, 124, 146)),
    ((176, 138, 130), (146, 112, 110)),
    ((70, 66, 64), (96, 90, 84)),
    ((206, 204, 196), (178, 180, 178)),
)


def ground_of(background: str, seed: int) -> Ground:
    """The ground of a place, or of one of TEXTURES, whose tones the scene's seed fixes."""
    return GROUNDS.get(background) or Ground(background, surface_of(seed))


def surface_of(seed: int) -> tuple[RGB, RGB]:
    """The two tones of a textured background, fixed by the scene's seed."""
    return SURFACES[seed % len(SURFACES)]


def colour_distance(one: RGB, two: RGB) -> float:
    """Perceived distance of two RGB colours, 0 to about 765 ("redmean" weighting)."""
    red_mean = (one[0] + two[0]) / 2
    red, green, blue = (a - b for a, b in zip(one, two, strict=True))
    weighted = (2 + red_mean / 256) * red**2 + 4 * green**2 + (2 + (255 - red_mean) / 256) * blue**2
    return float(weighted**0.5)


def place_canvas(name: str, side: int, rng: np.random.Generator) -> Canvas:
    """The smooth background `name`, its tones and horizon slightly jittered."""
    place = BACKGROUNDS[name]
    top, bottom = (np.array(tone) + rng.uniform(-7, 7, 3) for tone in (place.top, place.bottom))
    down = (np.arange(side) + 0.5) / side
    if place.horizon is not None:
        edge = place.horizon + rng.uniform(-0.12, 0.12)
        light = np.where(down < edge, 1.0, 1.06 - 0.12 * down)
        blend = (down >= edge).astype(np.float64)
    else:
        light, blend = np.ones(side), down
    column = (top + blend[:, None] * (bottom - top)) * light[:, None]
    return np.broadcast_to(np.clip(column, 0, 255).astype(np.uint8)[:, None], (side, side, 3))


def texture_canvas(ground: Ground, side: int, rng: np.random.Generator) -> Canvas:
    """The ground, its pattern turned and scaled by chance."""
    angle = rng.uniform(0, np.pi)
    axis = np.linspace(0, 1, side, dtype=np.float32)
    across = np.cos(angle) * axis[None] + np.sin(angle) * axis[:, None]
    along = np.cos(angle) * axis[:, None] - np.sin(angle) * axis[None]
    blend = _PATTERNS[ground.texture](across, along, rng)
    first, second = (np.array(tone, np.float32) for tone in ground.tones)
    return np.clip(first + blend[..., None] * (second - first), 0, 255).astype(np.uint8)


def _stripes(across: Grid, along: Grid, rng: np.random.Generator) -> Grid:
    return (np.sin(across * rng.uniform(25, 60)) > 0).astype(np.float32)


def _checks(across: Grid, along: Grid, rng: np.random.Generator) -> Grid:
    width = rng.uniform(0.08, 0.2)
    return ((across // width + along // width) % 2).astype(np.float32)


def _wood(across: Grid, along: Grid, rng: np.random.Generator) -> Grid:
    bend = np.sin(along * rng.uniform(3, 8) + rng.uniform(0, 6)) * rng.uniform(0.5, 2)
    return 0.5 + 0.5 * np.sin(across * rng.uniform(30, 60) + bend)


def _speckle(across: Grid, along: Grid, rng: np.random.Generator) -> Grid:
    return _grid_noise(rng, len(across), 24)


def _clouds(across: Grid, along: Grid, rng: np.random.Generator) -> Grid:
    return _grid_noise(rng, len(across), 5)


def _grid_noise(rng: np.random.Generator, side: int, num_cells: int) -> Grid:
    """Bilinear value noise with `num_cells` cells per side, (side, side) in [0, 1.4]."""
    grid = rng.random((num_cells + 1, num_cells + 1), dtype=np.float32) * 1.4
    where = np.linspace(0, num_cells - 1e-3, side)
    cell = where.astype(int)
    part = (where - cell).astype(np.float32)[:, None]
    rows = grid[cell] * (1 - part) + grid[cell + 1] * part
    return rows[:, cell] * (1 - part.T) + rows[:, cell + 1] * part.T


_PATTERNS = {
    "stripes": _stripes,
    "checks": _checks,
    "wood": _wood,
    "speckle": _speckle,
    "clouds": _clouds,
}
