"""Outlines of simple shapes as points, the material the drawings are made of.

Every shape is an (N, 2) float array of corners in the frame x right, y down; angles are degrees,
0 to the right and 90 down.
"""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def ellipse(x: float, y: float, rx: float, ry: float | None = None, start: float = 0, stop: float = 360) -> Points:
    """Corners along the ellipse around (x, y), or along its arc from start to stop."""
    whole = stop - start == 360
    angles = np.radians(np.linspace(start, stop, 22, endpoint=not whole))
    return np.stack([x + rx * np.cos(angles), y + (ry or rx) * np.sin(angles)], axis=1)


def rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def polygon(*corners: tuple[float, float]) -> Points:
    return np.array(corners, dtype=np.float64)


def joined(*shapes: Points) -> Points:
    """One outline that runs through the corners of all shapes in turn."""
    return np.concatenate(shapes)


def spikes(num: int, outer: float, inner: float) -> Points:
    """A star around the origin with `num` points, the first one up."""
    angles = np.radians(-90 + 180 / num * np.arange(2 * num))
    radius = np.where(np.arange(2 * num) % 2 == 0, outer, inner)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def stroke(path: Points, width: float) -> Points:
    """The ribbon of the given width around an open path."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = width / 2 * np.stack([-along[:, 1], along[:, 0]], axis=1)
    return np.concatenate([path + side, (path - side)[::-1]])


def turned(points: Points, angle: float, x: float = 0, y: float = 0) -> Points:
    """The points rotated by `angle` degrees (clockwise on screen), then moved by (x, y)."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return points @ np.array([[cos, sin], [-sin, cos]]) + (x, y)


def outset(points: Points, distance: float) -> Points:
    """The outline moved outwards by `distance`; sharp corners are blunted."""
    points = points[np.any(points != np.roll(points, 1, axis=0), axis=1)]
    edge = np.roll(points, -1, axis=0) - points
    edge /= np.linalg.norm(edge, axis=1, keepdims=True)
    x, y = points.T
    clockwise = np.sign(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
    after = clockwise * np.stack([edge[:, 1], -edge[:, 0]], axis=1)
    before = np.roll(after, 1, axis=0)
    blunt = np.maximum(1 + np.sum(after * before, axis=1, keepdims=True), 0.45)
    return points + distance * (after + before) / blunt
