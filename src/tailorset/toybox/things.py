"""Drawings of things that people make."""

from tailorset.toybox.parts import Part, leaning, mark, part
from tailorset.toybox.shapes import ellipse, joined, polygon, rectangle, stroke, turned


def umbrella(variant: int) -> list[Part]:
    height = (0.95, 0.8, 1.05)[variant]
    scallops = [ellipse(x, 0, 1 / 3, 0.2, 0, -180) for x in (2 / 3, 0, -2 / 3)]
    dome = joined(ellipse(0, 0, 1, height, 180, 360), *scallops)
    panel = joined(ellipse(0, 0, 1 / 3, height, 180, 360), scallops[1])
    handle = [
        rectangle(-0.09, -0.4, 0.09, 0.82),
        stroke(ellipse(0.22, 0.8, 0.22, 0.22, 190, -5), 0.18),
    ]
    return [
        part("wood", *handle, rectangle(-0.07, -height - 0.16, 0.07, -height + 0.1)),
        part("main", dome),
        mark(("tint", "second", "shade")[variant], panel),
    ]


def clock(variant: int) -> list[Part]:
    frame, face = ellipse(0, 0, 1), ellipse(0, 0, 0.7)
    if variant == 2:
        frame, face = rectangle(-0.9, -0.9, 0.9, 0.9), rectangle(-0.62, -0.62, 0.62, 0.62)
    hands = [polygon((-0.09, 0.09), (-0.09, -0.52), (0.09, -0.52), (0.09, 0.09))]
    hands.append(turned(rectangle(-0.09, -0.42, 0.09, 0.09), 115))
    ticks = [turned(rectangle(-0.05, -0.66, 0.05, -0.54), angle) for angle in (0, 90, 180, 270)]
    bells = [part("metal", ellipse(-0.62, -0.92, 0.36), ellipse(0.62, -0.92, 0.36))]
    feet = [part("wood", *(turned(rectangle(-0.13, 0.8, 0.13, 1.3), angle) for angle in (-35, 35)))]
    alarm = bells + feet if variant == 1 else []
    return [*alarm, part("main", frame), part("paper", face), mark("ink", *hands, *ticks)]


def boat(variant: int) -> list[Part]:
    hull = part("main", polygon((-1, 0.3), (1, 0.3), (0.66, 0.86), (-0.66, 0.86)))
    band = mark("tint", polygon((-0.95, 0.38), (0.95, 0.38), (0.88, 0.5), (-0.88, 0.5)))
    mast = part("wood", rectangle(-0.07, -1.0, 0.07, 0.32))
    front = part("paper", polygon((0.12, -0.9), (0.82, 0.16), (0.12, 0.16)))
    back = part("paper", polygon((-0.12, -0.6), (-0.12, 0.16), (-0.7, 0.16)))
    if variant == 2:
        cabin = part("paper", rectangle(-0.5, -0.18, 0.42, 0.32))
        funnel = part("shade", rectangle(-0.12, -0.72, 0.2, -0.18))
        ports = mark("ink", *(ellipse(x, 0.05, 0.1) for x in (-0.3, -0.03, 0.24)))
        return [funnel, cabin, ports, hull, band]
    return [mast, front, *([back] if variant == 0 else []), hull, band]


def cup(variant: int) -> list[Part]:
    tall = (0.72, 0.5, 0.86)[variant]
    handle = part("main", stroke(ellipse(0.62, 0.02, 0.4, tall * 0.56, -100, 100), 0.2))
    straight = joined(rectangle(-0.68, -tall, 0.68, -tall + 0.1)[:2], ellipse(0, tall - 0.3, 0.68, 0.3, 0, 180))
    bowl = joined(polygon((-0.8, -tall), (0.8, -tall)), ellipse(0, -tall + 0.15, 0.8, 1.0, 0, 180))
    body, width = (bowl, 0.8) if variant == 1 else (straight, 0.68)
    drink = [
        part("paper", ellipse(0, -tall, width, 0.2)),
        mark("wood", ellipse(0, -tall + 0.01, width - 0.16, 0.11)),
    ]
    saucer = [part("second", ellipse(0, 0.72, 1.0, 0.2))] if variant == 1 else []
    stripe = [mark("second", rectangle(-0.68, -0.1, 0.68, 0.24))] if variant == 2 else []
    return [*saucer, handle, part("main", body), *stripe, *drink]


def key(variant: int) -> list[Part]:
    rings = [stroke(ellipse(-0.55, 0, 0.36, 0.36, a, a + 190), 0.26) for a in (0, 180)]
    if variant == 1:
        knobs = [ellipse(x, y, 0.3) for x, y in ((-0.9, 0), (-0.5, -0.36), (-0.5, 0.36))]
        rings = [*knobs, ellipse(-0.5, 0, 0.3)]
    if variant == 2:
        rings = [
            stroke(
                polygon(
                    (-0.18, -0.1),
                    (-0.18, 0.42),
                    (-0.9, 0.42),
                    (-0.9, -0.42),
                    (-0.18, -0.42),
                    (-0.18, 0.1),
                ),
                0.26,
            )
        ]
    shaft = rectangle(-0.25, -0.12, 1.05, 0.12)
    teeth = [rectangle(0.42, 0, 0.6, 0.42), rectangle(0.8, 0, 1.05, 0.48)]
    hole = [mark("ink", ellipse(-0.6, 0, 0.14))] if variant == 1 else []
    return [part("main", *rings, shaft, *teeth), *hole]


def ball(variant: int) -> list[Part]:
    disc = part("main", ellipse(0, 0, 1))
    if variant == 0:
        wedges = [joined(polygon((0, 0)), ellipse(0, 0, 0.97, 0.97, a, a + 45)) for a in (10, 100, 190, 280)]
        return [disc, mark("second", *wedges), mark("main", ellipse(0, 0, 0.2))]
    if variant == 1:
        band = joined(ellipse(0, -0.1, 0.97, 0.45, 180, 0), ellipse(0, 0.3, 0.92, 0.45, 0, 180))
        return [disc, mark("second", band)]
    seams = [stroke(ellipse(x, 0, 0.62, 0.8, a, a + 110), 0.15) for x, a in ((-1, -55), (1, 125))]
    return [disc, mark("second", *seams, rectangle(-0.96, -0.07, 0.96, 0.07))]


def bottle(variant: int) -> list[Part]:
    half, shoulder = ((0.42, -0.2), (0.5, 0.05), (0.36, -0.3))[variant]
    neck = polygon((-0.17, -0.9), (0.17, -0.9), (0.17, shoulder - 0.25))
    body = joined(
        neck,
        polygon((half, shoulder), (half, 1), (-half, 1), (-half, shoulder)),
        polygon((-0.17, shoulder - 0.25)),
    )
    cap = part("wood", rectangle(-0.21, -1.06, 0.21, -0.82))
    label = mark("second", rectangle(-half + 0.02, shoulder + 0.25, half - 0.02, 0.72))
    return [part("main", body), label, cap]


def car(variant: int) -> list[Part]:
    left, right = ((-0.55, 0.45), (-0.85, 0.3), (-0.35, 0.6))[variant]
    cabin = polygon((left - 0.15, 0.05), (left + 0.08, -0.5), (right - 0.08, -0.5), (right + 0.25, 0.05))
    body = rectangle(-1, -0.02, 1, 0.45)
    middle = (left + right) / 2
    windows = [
        polygon((left + 0.05, 0), (left + 0.17, -0.36), (middle - 0.04, -0.36), (middle - 0.04, 0)),
        polygon((middle + 0.08, 0), (middle + 0.08, -0.36), (right - 0.12, -0.36), (right + 0.08, 0)),
    ]
    wheels = [ellipse(x, 0.47, 0.27) for x in (-0.55, 0.55)]
    hubs = mark("metal", *(ellipse(x, 0.47, 0.12) for x in (-0.55, 0.55)))
    lamp = mark("lamp", rectangle(0.84, 0.08, 0.99, 0.24))
    return [part("main", cabin, body), mark("glass", *windows), lamp, part("ink", *wheels), hubs]


def house(variant: int) -> list[Part]:
    peak, half = ((-1.0, 0.72), (-0.85, 0.85), (-1.1, 0.6))[variant]
    chimney = part("wood", rectangle(0.28, -0.85, 0.52, -0.2))
    wall = part("main", rectangle(-half, -0.15, half, 0.85))
    roof = part("shade", polygon((-half - 0.22, -0.1), (0, peak), (half + 0.22, -0.1)))
    door = part("wood", rectangle(-0.42, 0.28, -0.06, 0.85))
    window = part("glass", rectangle(0.12, 0.12, half - 0.12, 0.5))
    return [*([chimney] if variant < 2 else []), wall, roof, door, window]


def kite(variant: int) -> list[Part]:
    half, low = ((0.62, 0.42), (0.75, 0.5), (0.55, 0.3))[variant]
    top, right, bottom, left = (0, -1.0), (half, -0.4), (0, low), (-half, -0.4)
    paint = ("tint", "second", "shade")[variant]
    halves = [polygon(top, right, (0, -0.4)), polygon((0, -0.4), bottom, left)]
    tail = stroke(polygon((0, low), (0.16, low + 0.2), (-0.1, low + 0.42), (0.12, low + 0.64)), 0.12)
    bows = [
        polygon((x - 0.22, y - 0.13), (x + 0.22, y + 0.13), (x + 0.22, y - 0.13), (x - 0.22, y + 0.13))
        for x, y in ((0.14, low + 0.2), (-0.06, low + 0.48))
    ]
    spars = mark("ink", rectangle(-half, -0.44, half, -0.36), rectangle(-0.04, -1, 0.04, low))
    return [
        mark("ink", tail),
        part("main", *bows),
        part("main", polygon(top, right, bottom, left)),
        mark(paint, *halves),
        spars,
    ]


def bucket(variant: int) -> list[Part]:
    top, low = ((0.85, 0.58), (0.95, 0.6), (0.75, 0.55))[variant]
    handle = part("metal", stroke(ellipse(0, -0.3, top * 0.92, 0.75, 180, 360), 0.14))
    body = joined(polygon((-top, -0.3), (top, -0.3)), ellipse(0, 0.8, low, 0.16, 0, 180))
    band = mark(
        ("shade", "second", "tint")[variant],
        polygon((-top + 0.08, 0.02), (top - 0.08, 0.02), (top - 0.13, 0.24), (-top + 0.13, 0.24)),
    )
    return [handle, part("main", body), band, part("shade", ellipse(0, -0.3, top, 0.2))]


def spoon(variant: int) -> list[Part]:
    wide, end = ((0.42, 0.14), (0.46, 0.18), (0.37, 0.16))[variant]
    handle = polygon((-0.1, -0.2), (0.1, -0.2), (end, 1.1), (-end, 1.1))
    hollow = mark("tint", ellipse(0, -0.64, wide - 0.15, 0.35))
    return leaning(20, part("main", handle, ellipse(0, -0.62, wide, 0.52)), hollow)


def hat(variant: int) -> list[Part]:
    brim = part("main", ellipse(0, 0.5, 1.1, 0.24))
    if variant == 0:
        crown = polygon((-0.55, 0.5), (-0.62, -0.7), (0.62, -0.7), (0.55, 0.5))
        band = rectangle(-0.57, 0.08, 0.57, 0.36)
    elif variant == 1:
        crown = ellipse(0, 0.45, 0.68, 0.95, 180, 360)
        band = rectangle(-0.66, 0.12, 0.66, 0.38)
    else:
        crown = polygon((-0.66, 0.5), (-0.28, -0.55), (0.62, -0.85), (0.3, -0.4), (0.66, 0.5))
        band = polygon((-0.62, 0.42), (-0.52, 0.12), (0.52, 0.12), (0.63, 0.42))
    return [brim, part("main", crown), mark("second", band)]
