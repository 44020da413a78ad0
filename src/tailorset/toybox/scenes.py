"""Scenes of toybox objects: positions of objects, and the rendered picture.

Positions and sizes are fractions of the image side (x right, y down); an item is inside the disc
of diameter `size` around (x, y).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tailorset.seeding import pick
from tailorset.toybox.backgrounds import (
    BACKGROUNDS,
    TEXTURES,
    Canvas,
    colour_distance,
    ground_of,
    place_canvas,
    texture_canvas,
)
from tailorset.toybox.camera import CHEAP, GOOD, draw_clutter, expose
from tailorset.toybox.objects import outline_of
from tailorset.toybox.parts import COLOURS, NUM_VARIANTS, paints_for

WebStyle = Literal["drawing", "snapshot"]
Style = Literal["drawing", "snapshot", "photo"]
Relation = Literal["", "next to", "above"]

SNAPSHOT_SHARE = 0.5  # of web scenes; the rest are drawings
SUPERSAMPLING: dict[Style, int] = {"drawing": 3, "snapshot": 2, "photo": 2}
MIN_CONTRAST: dict[Style, float] = {"drawing": 150.0, "snapshot": 120.0, "photo": 120.0}
_MAX_ANGLE: dict[Style, float] = {"drawing": 15, "snapshot": 35, "photo": 50}
_NUM_CLUTTER: dict[Style, tuple[int, int]] = {"snapshot": (0, 4), "photo": (4, 9)}  # from, to (exclusive)
_CAMERAS = {"snapshot": GOOD, "photo": CHEAP}
_NUM_IN_WEB = ((1, 2, 3), (0.45, 0.45, 0.10))
_NUM_IN_PHOTO = ((2, 3, 4, 5), (0.25, 0.35, 0.25, 0.15))
_WEB_SIZES: dict[WebStyle, dict[int, tuple[float, float]]] = {
    "drawing": {1: (0.55, 0.85), 2: (0.42, 0.55), 3: (0.34, 0.44)},
    "snapshot": {1: (0.42, 0.75), 2: (0.34, 0.52), 3: (0.28, 0.42)},
}
_PHOTO_SIZES = {1: (0.3, 0.42), 2: (0.3, 0.42), 3: (0.27, 0.42), 4: (0.25, 0.38), 5: (0.24, 0.36)}


@dataclass(frozen=True)
class Item:
    """One object; `angle` is in degrees clockwise, `variant` in range(NUM_VARIANTS)."""

    label: str
    colour: str
    x: float
    y: float
    size: float
    angle: float
    mirror: bool
    variant: int


@dataclass(frozen=True)
class Scene:
    """Items back to front; `relation` is the relation of items[0] to items[1] ("" if there is none).

    `background` is a key of BACKGROUNDS (drawing), one of TEXTURES (photo) or either (snapshot).
    """

    items: tuple[Item, ...]
    background: str
    relation: Relation
    seed: int
    style: Style


def web_scene(
    rng: np.random.Generator,
    labels: Sequence[str],
    num_objects: int | None = None,
    style: WebStyle | None = None,
) -> Scene:
    """A tidy scene of 1 to 3 objects with distinct labels out of `labels`; by chance a drawing or a snapshot."""
    num = _num_objects(rng, labels, num_objects, _NUM_IN_WEB)
    seed = int(rng.integers(2**31))
    by_chance: WebStyle = "snapshot" if rng.random() < SNAPSHOT_SHARE else "drawing"
    style = style or by_chance
    background = pick(rng, list(BACKGROUNDS))
    if style == "snapshot" and rng.random() < 0.5:
        background = pick(rng, TEXTURES)
    relation: Relation = ""
    if num > 1:
        relation = "next to" if num == 3 or rng.random() < 0.6 else "above"
    discs = _layout(rng, num, _WEB_SIZES[style][num], relation=relation)
    return Scene(_items(rng, labels, discs, background, seed, style), background, relation, seed, style)


def photo_scene(rng: np.random.Generator, labels: Sequence[str], num_objects: int | None = None) -> Scene:
    """A cluttered scene of 2 to 5 objects, turned, overlapping and cut by the border."""
    num = _num_objects(rng, labels, num_objects, _NUM_IN_PHOTO)
    seed = int(rng.integers(2**31))
    background = pick(rng, TEXTURES)
    discs = _layout(rng, num, _PHOTO_SIZES[num], margin=0.13, overlap=0.22)
    return Scene(_items(rng, labels, discs, background, seed, "photo"), background, "", seed, "photo")


def contrasting_colours(background: str, seed: int = 0, style: Style = "drawing") -> tuple[str, ...]:
    """The names of the colours that stand out from a background; the seed counts for surfaces only."""
    if style == "drawing":
        tones = (BACKGROUNDS[background].top, BACKGROUNDS[background].bottom)
    else:
        tones = ground_of(background, seed).tones
    return tuple(
        name
        for name, colour in COLOURS.items()
        if min(colour_distance(colour, tone) for tone in tones) >= MIN_CONTRAST[style]
    )


def render(scene: Scene, size_px: int) -> NDArray[np.uint8]:
    """The picture of the scene, (size_px, size_px, 3); equal arguments give equal bytes."""
    rng = np.random.default_rng(scene.seed)
    scale = SUPERSAMPLING[scene.style]
    side = scale * size_px
    image = Image.fromarray(_canvas(scene, side, rng))
    draw = ImageDraw.Draw(image)
    if scene.style in _NUM_CLUTTER:
        draw_clutter(draw, side, int(rng.integers(*_NUM_CLUTTER[scene.style])), rng)
        _draw_shadows(draw, scene, side, rng)
    for item in scene.items:
        paints = paints_for(item.colour, rng)
        for corners, paint in _placed(item, side):
            draw.polygon(corners, fill=paints[paint])
    image = image.reduce(scale)
    camera = _CAMERAS.get(scene.style)
    return np.asarray(expose(image, camera, rng) if camera else image)


def _canvas(scene: Scene, side: int, rng: np.random.Generator) -> Canvas:
    if scene.style == "drawing":
        return place_canvas(scene.background, side, rng)
    return texture_canvas(ground_of(scene.background, scene.seed), side, rng)


def _placed(item: Item, side: int) -> Iterator[tuple[list[float], str]]:
    """The item's polygons in pixels as flat x, y lists, back to front, each with its paint."""
    outline = outline_of(item.label, item.variant)
    cos, sin = np.cos(np.radians(item.angle)), np.sin(np.radians(item.angle))
    flip = -1.0 if item.mirror else 1.0
    turn = np.array([[flip * cos, flip * sin], [-sin, cos]])
    points = (outline.points @ turn * item.size / 2 + (item.x, item.y)) * side
    corners: list[float] = points.ravel().tolist()
    for k, paint in enumerate(outline.paints):
        yield corners[2 * outline.starts[k] : 2 * outline.starts[k + 1]], paint


def _draw_shadows(draw: ImageDraw.ImageDraw, scene: Scene, side: int, rng: np.random.Generator) -> None:
    """Every item's cast shadow, all falling the same way, under all items."""
    right, down = rng.uniform((-0.04, 0.015), (0.04, 0.05))
    red, green, blue = (int(0.55 * tone) for tone in ground_of(scene.background, scene.seed).tones[0])
    for item in scene.items:
        moved = replace(item, x=item.x + right, y=item.y + down)
        for corners, paint in _placed(moved, side):
            if paint == "outline":
                draw.polygon(corners, fill=(red, green, blue))


def _num_objects(
    rng: np.random.Generator,
    labels: Sequence[str],
    num_objects: int | None,
    chances: tuple[tuple[int, ...], tuple[float, ...]],
) -> int:
    """Number of objects, as requested or random, checked against the labels."""
    if num_objects is None:
        return min(int(rng.choice(chances[0], p=chances[1])), len(labels))
    if not 1 <= num_objects <= min(len(labels), max(chances[0])):
        raise ValueError(
            f"num_objects={num_objects}: give 1 to {max(chances[0])}, and at least as many labels (now {len(labels)})"
        )
    return num_objects


def _items(
    rng: np.random.Generator,
    labels: Sequence[str],
    discs: NDArray[np.float64],
    background: str,
    seed: int,
    style: Style,
) -> tuple[Item, ...]:
    """One item with its own label for each (x, y, size) row of discs."""
    colours, max_angle = contrasting_colours(background, seed, style), _MAX_ANGLE[style]
    chosen = rng.choice(len(labels), len(discs), replace=False)
    return tuple(
        Item(
            label=labels[index],
            colour=colours[int(rng.integers(len(colours)))],
            x=float(x),
            y=float(y),
            size=float(size),
            angle=float(rng.uniform(-max_angle, max_angle)),
            mirror=bool(rng.random() < 0.5),
            variant=int(rng.integers(NUM_VARIANTS)),
        )
        for index, (x, y, size) in zip(chosen, discs, strict=True)
    )


def _layout(
    rng: np.random.Generator,
    num: int,
    sizes: tuple[float, float],
    margin: float | None = None,
    overlap: float = 0.0,
    relation: str = "",
) -> NDArray[np.float64]:
    """The (num, 3) x, y, size of discs that overlap by at most `overlap` of their radii.

    Centres keep `margin` from the border, or all of the disc inside when it is None; the first two
    discs have the `relation`. The first of many random candidates that satisfies all this is used.
    """
    while True:
        size = rng.uniform(*sizes, (64, num, 1))
        border = size / 2 if margin is None else np.full_like(size, margin)
        centre = border + (1 - 2 * border) * rng.random((64, num, 2))
        discs = np.concatenate([centre, size], axis=2)
        if relation == "above":
            discs = np.take_along_axis(discs, np.argsort(discs[..., 1:2], axis=1), axis=1)
        fits = (_overlap(discs) <= overlap) & _are_true(relation, discs)
        if fits.any():
            return discs[np.argmax(fits)]


def _are_true(relation: str, discs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which layouts (K, num, 3) clearly have their first two discs in the relation, (K,) bool."""
    if not relation:
        return np.ones(len(discs), dtype=np.bool_)
    right, down, _ = np.abs(discs[:, 1] - discs[:, 0]).T
    return right > 1.3 * down if relation == "next to" else down > 1.3 * right


def _overlap(discs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The deepest overlap of two discs in each layout (K, num, 3), as a share of their radii, (K,)."""
    first, second = np.triu_indices(discs.shape[1], 1)
    gaps = np.linalg.norm(discs[:, first, :2] - discs[:, second, :2], axis=2)
    touching = (discs[:, first, 2] + discs[:, second, 2]) / 2
    return np.max(1 - gaps / touching, axis=1, initial=0.0)
