"""The twenty toybox objects by label: their drawings, ready to fill with paint."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from tailorset.toybox import nature, things
from tailorset.toybox.parts import COLOURS, NUM_VARIANTS, Part
from tailorset.toybox.shapes import Points, outset

__all__ = ["COLOURS", "DRAWINGS", "NUM_VARIANTS", "Outline", "outline_of"]

OUTLINE_WIDTH = 0.085  # in the drawing's own units, about a twentieth of its diameter
DRAWINGS: dict[str, Callable[[int], list[Part]]] = {
    "umbrella": things.umbrella,
    "clock": things.clock,
    "boat": things.boat,
    "cup": things.cup,
    "key": things.key,
    "fish": nature.fish,
    "ball": things.ball,
    "bottle": things.bottle,
    "car": things.car,
    "house": things.house,
    "flower": nature.flower,
    "kite": things.kite,
    "tree": nature.tree,
    "mushroom": nature.mushroom,
    "leaf": nature.leaf,
    "bird": nature.bird,
    "bucket": things.bucket,
    "spoon": things.spoon,
    "hat": things.hat,
    "star": nature.star,
}


@dataclass(frozen=True)
class Outline:
    """One object ready to fill: polygon k is points[starts[k]:starts[k + 1]] in paints[k]."""

    points: Points
    starts: tuple[int, ...]
    paints: tuple[str, ...]


@cache
def outline_of(label: str, variant: int) -> Outline:
    """The drawing centred in the unit disc, its dark lines turned into filled polygons."""
    fills: list[tuple[str, Points]] = []
    for piece in DRAWINGS[label](variant):
        if piece.outlined:
            fills += [("outline", outset(p, OUTLINE_WIDTH)) for p in piece.polygons]
        fills += [(piece.paint, p) for p in piece.polygons]
    points = np.concatenate([p for _, p in fills])
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    points /= np.linalg.norm(points, axis=1).max()
    starts = np.cumsum([0, *(len(p) for _, p in fills)])
    return Outline(points, tuple(starts.tolist()), tuple(paint for paint, _ in fills))
