"""The material of drawings: named paints, and parts made of polygons.

Contract of a drawing: `draw(variant)` with variant in range(NUM_VARIANTS) returns the parts of the
object, back to front, upright, in any convenient scale; `objects.outline_of` centres the result in
the unit disc. Paint "main" is the item's colour, "shade" and "tint" its darker and lighter tone,
"second" a clear contrast to it; all other paints are fixed.
"""

from dataclasses import dataclass, replace

import numpy as np

from tailorset.toybox.shapes import Points, turned

RGB = tuple[int, int, int]
NUM_VARIANTS = 3

COLOURS: dict[str, RGB] = {
    "red": (218, 38, 42),
    "orange": (250, 138, 22),
    "yellow": (250, 218, 40),
    "green": (38, 152, 58),
    "blue": (38, 88, 214),
    "purple": (146, 62, 178),
    "white": (246, 246, 244),
    "black": (62, 62, 70),
}
FIXED_PAINTS: dict[str, RGB] = {
    "outline": (24, 20, 28),
    "ink": (24, 20, 28),
    "paper": (252, 252, 248),
    "cream": (244, 228, 196),
    "wood": (140, 88, 46),
    "metal": (176, 182, 192),
    "glass": (176, 222, 246),
    "lamp": (255, 222, 110),
    "stem": (62, 140, 54),
    "beak": (250, 160, 30),
}


@dataclass(frozen=True)
class Part:
    """Polygons of one paint; outlined parts get a dark line around their union."""

    paint: str
    polygons: tuple[Points, ...]
    outlined: bool = True


def part(paint: str, *polygons: Points) -> Part:
    return Part(paint, polygons)


def mark(paint: str, *polygons: Points) -> Part:
    """A part inside another one, without a line around it."""
    return Part(paint, polygons, outlined=False)


def leaning(angle: float, *parts: Part) -> list[Part]:
    """The parts, all turned by `angle` degrees."""
    return [replace(p, polygons=tuple(turned(q, angle) for q in p.polygons)) for p in parts]


def paints_for(colour: str, rng: np.random.Generator) -> dict[str, RGB]:
    """Every paint of an item whose main colour is `colour`, slightly jittered."""
    main = np.clip(np.array(COLOURS[colour]) + rng.uniform(-14, 14, 3), 0, 255)
    tones = {"main": main, "shade": 0.68 * main, "tint": 0.45 * main + 0.55 * 255}
    second = (150, 165, 195) if colour == "white" else (250, 250, 246)
    mixed = {name: (int(r), int(g), int(b)) for name, (r, g, b) in tones.items()}
    return {**FIXED_PAINTS, **mixed, "second": second}
