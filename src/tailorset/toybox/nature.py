"""Drawings of what grows, lives or shines by itself."""

import numpy as np

from tailorset.toybox.parts import Part, leaning, mark, part
from tailorset.toybox.shapes import ellipse, joined, polygon, rectangle, spikes, stroke, turned


def fish(variant: int) -> list[Part]:
    height = (0.5, 0.56, 0.66)[variant]
    tail = part("shade", polygon((0.4, 0), (1.05, -0.58), (0.86, 0), (1.05, 0.58)))
    fin = part("shade", polygon((-0.3, -height * 0.7), (0.3, -height - 0.3), (0.42, -height * 0.5)))
    body = part("main", ellipse(-0.22, 0, 0.8, height))
    stripes = mark("second", *(stroke(ellipse(x, 0, 0.16, height * 0.8, -80, 80), 0.14) for x in (-0.25, 0.1)))
    belly = mark("tint", ellipse(-0.2, height * 0.45, 0.5, height * 0.4))
    eye = [mark("paper", ellipse(-0.64, -0.12, 0.18)), mark("ink", ellipse(-0.67, -0.12, 0.1))]
    return [tail, fin, body, stripes if variant == 1 else belly, *eye]


def flower(variant: int) -> list[Part]:
    num, long, wide = ((6, 0.34, 0.25), (5, 0.36, 0.34), (8, 0.36, 0.19))[variant]
    petals = [turned(ellipse(0.46, 0, long, wide), 360 / num * k + 18, 0, -0.4) for k in range(num)]
    stem = part("stem", rectangle(-0.09, -0.3, 0.09, 1.1))
    leaves = part(
        "stem",
        turned(ellipse(0.32, 0, 0.34, 0.16), -30, 0, 0.9),
        turned(ellipse(-0.32, 0, 0.34, 0.16), 30, 0, 0.8),
    )
    return [stem, leaves, part("main", *petals), part("second", ellipse(0, -0.4, 0.28))]


def tree(variant: int) -> list[Part]:
    trunk = part("wood", polygon((-0.17, 0), (0.17, 0), (0.26, 1.05), (-0.26, 1.05)))
    if variant == 1:
        rows = ((0.78, 0.55), (0.64, 0.08), (0.46, -0.38))
        tiers = [polygon((-half, y), (0, y - 0.75), (half, y)) for half, y in rows]
        return [trunk, *(part("main", tier) for tier in tiers)]
    low, high = ((0.48, 0.28), (0.58, 0.36))[variant // 2]
    puffs = [ellipse(x, y, 0.4) for x, y in ((-low, 0), (low, 0), (-high, -0.5), (high, -0.5), (0, -0.72), (0, -0.2))]
    forks = [stroke(polygon((0, 0.2), (x, y)), 0.14) for x, y in ((-0.4, -0.2), (0.34, -0.34))]
    return [trunk, part("main", *puffs), mark("wood", *forks, rectangle(-0.13, 0.05, 0.13, 0.6))]


def mushroom(variant: int) -> list[Part]:
    height, wide = ((0.85, 0.95), (0.62, 1.05), (1.1, 0.8))[variant]
    stem = joined(polygon((-0.27, -0.1), (0.27, -0.1)), ellipse(0, 0.66, 0.4, 0.24, 0, 180))
    cap = joined(ellipse(0, 0, wide, height, 180, 360), ellipse(0, 0, wide, 0.16, 0, 180))
    spots = [
        ellipse(-0.45 * wide, -0.3 * height, 0.19),
        ellipse(0.08, -0.58 * height, 0.2),
        ellipse(0.52 * wide, -0.24 * height, 0.17),
    ]
    return [part("cream", stem), part("main", cap), mark("second", *spots)]


def leaf(variant: int) -> list[Part]:
    half, low = ((0.58, 1.5), (0.7, 1.3), (0.48, 1.4))[variant]
    down = np.linspace(0, 1, 14)
    edge = np.stack([half * np.sin(np.pi * down**low), 1.7 * down - 1], axis=1)
    blade = joined(edge, (edge * (-1, 1))[::-1])
    veins = [stroke(polygon((0, y), (side * half * 0.62, y - 0.26)), 0.1) for y in (-0.02, 0.38) for side in (-1, 1)]
    stem = part("wood", rectangle(-0.09, 0.5, 0.09, 1.15))
    rib = mark("second", rectangle(-0.06, -0.6, 0.06, 0.62), *veins)
    return leaning(35, stem, part("main", blade), rib)


def bird(variant: int) -> list[Part]:
    legs = part("beak", rectangle(-0.2, 0.5, -0.07, 1.0), rectangle(0.16, 0.5, 0.29, 1.0))
    tail = part("shade", polygon((0.5, 0.05), (1.1, -0.35), (1.15, 0.05), (0.6, 0.4)))
    beak = part("beak", polygon((-0.75, -0.58), (-1.2, -0.36), (-0.72, -0.25)))
    body = part("main", ellipse(0.05, 0.15, 0.72, 0.55), ellipse(-0.48, -0.4, 0.42))
    raised = polygon((-0.1, 0.15), (0.35, -0.85), (0.62, 0.1))
    folded = turned(ellipse(0, 0, 0.42, 0.24), (20, -15, 0)[variant], 0.22, 0.1)
    wing = part(("tint", "second", "shade")[variant], raised if variant == 1 else folded)
    eye = [mark("paper", ellipse(-0.55, -0.45, 0.16)), mark("ink", ellipse(-0.57, -0.45, 0.1))]
    return [legs, tail, beak, body, wing, *eye]


def star(variant: int) -> list[Part]:
    body = part("main", spikes(5, 1, (0.45, 0.52, 0.48)[variant]))
    middle = ([], [mark("tint", spikes(5, 0.55, 0.26))], [mark("shade", ellipse(0, 0, 0.25))])[variant]
    return [body, *middle]
