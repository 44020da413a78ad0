"""Random changes to training images, each seeded on its own: neither batch nor worker count changes an image.

Letters: B batch, P pixels of a side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

MAGNITUDE = 0.3  # of each operation's range: RandAugment's published 9 of 30
NUM_OPERATIONS = 2
LOW_RESOLUTIONS = (0.25, 0.375, 0.5)

Operation = Callable[[Tensor, float], Tensor]  # (uint8 images, signed magnitude in [-1, 1]) -> uint8 images


def _torchvision() -> Any:
    """Its functions; importing it takes two seconds, and stages that augment nothing read the settings below too."""
    from torchvision.transforms.v2 import functional

    return functional


def _affine(
    degrees: float = 0.0, shift: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0.0, 0.0)
) -> Operation:
    """An affine operation at magnitude 1: degrees of rotation and shear, shift in percent of the side."""

    def apply(images: Tensor, magnitude: float) -> Tensor:
        side = images.shape[-1]
        pixels = [round(magnitude * percent * side / 100) for percent in shift]
        return _torchvision().affine(images, degrees * magnitude, pixels, 1.0, [angle * magnitude for angle in shear])

    return apply


# RandAugment's space (Cubuk et al. 2020) with torchvision's ranges
OPERATIONS: dict[str, Operation] = {
    "identity": lambda images, _: images,
    "shear_x": _affine(shear=(16.7, 0.0)),
    "shear_y": _affine(shear=(0.0, 16.7)),
    "translate_x": _affine(shift=(45, 0)),
    "translate_y": _affine(shift=(0, 45)),
    "rotate": _affine(degrees=30.0),
    "brightness": lambda images, m: _torchvision().adjust_brightness(images, 1 + 0.9 * m),
    "color": lambda images, m: _torchvision().adjust_saturation(images, 1 + 0.9 * m),
    "contrast": lambda images, m: _torchvision().adjust_contrast(images, 1 + 0.9 * m),
    "sharpness": lambda images, m: _torchvision().adjust_sharpness(images, 1 + 0.9 * m),
    "posterize": lambda images, m: _torchvision().posterize(images, 8 - round(4 * abs(m))),
    "solarize": lambda images, m: _torchvision().solarize(images, 255 * (1 - abs(m))),
    "autocontrast": lambda images, _: _torchvision().autocontrast(images),
    "equalize": lambda images, _: _torchvision().equalize(images),
}


class AugmentConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cutout: float = Field(0.5, ge=0, le=1)  # side of the erased square, a share of the image's; 0 = off
    rand_augment: bool = True
    low_resolution: float = Field(0.5, ge=0, le=1)  # probability of passing through a quarter to half the resolution
    zoom_out: float = Field(0.5, gt=0, le=1)  # smallest scale of the image, mirrored at its edges; 1 = off


@dataclass(frozen=True)
class Plan:
    """What happens to one image."""

    operations: tuple[tuple[str, float], ...]
    zoom: float
    low_px: int | None
    cutout_centre: tuple[float, float]
    cutout_level: float


def augment(images: Tensor, seeds: Sequence[int], config: AugmentConfig) -> Tensor:
    """images: (B, 3, P, P) uint8 -> (B, 3, P, P) float in [0, 1]; seeds: one per image."""
    plans = [_plan(np.random.default_rng(seed), images.shape[-1], config) for seed in seeds]
    for step in range(NUM_OPERATIONS if config.rand_augment else 0):
        images = _apply_operations(images, [plan.operations[step] for plan in plans])
    pixels = images.float() / 255
    if config.zoom_out < 1:
        pixels = _zoom(pixels, torch.tensor([plan.zoom for plan in plans], device=pixels.device))
    if config.low_resolution:
        pixels = _lower_resolution(pixels, [plan.low_px for plan in plans])
    if config.cutout:
        pixels = _cut_out(pixels, plans, config.cutout)
    return pixels


def _plan(rng: np.random.Generator, side: int, config: AugmentConfig) -> Plan:
    names = rng.choice(list(OPERATIONS), NUM_OPERATIONS)
    signs = rng.choice((-MAGNITUDE, MAGNITUDE), NUM_OPERATIONS)
    low_px = round(side * rng.choice(LOW_RESOLUTIONS))
    return Plan(
        operations=tuple((str(name), float(sign)) for name, sign in zip(names, signs, strict=True)),
        zoom=float(rng.uniform(config.zoom_out, 1.0)),
        low_px=low_px if rng.random() < config.low_resolution else None,
        cutout_centre=(float(rng.random()), float(rng.random())),
        cutout_level=float(rng.random()),
    )


def _apply_operations(images: Tensor, operations: Sequence[tuple[str, float]]) -> Tensor:
    """One operation an image; images that share one go through it together."""
    groups: dict[tuple[str, float], list[int]] = defaultdict(list)
    for index, operation in enumerate(operations):
        groups[operation].append(index)
    changed = images.clone()
    for (name, magnitude), indices in groups.items():
        changed[indices] = OPERATIONS[name](images[indices], magnitude)
    return changed


def _zoom(pixels: Tensor, scales: Tensor) -> Tensor:
    """Shrink each image about its centre; the margin shows its mirror image. scales: (B,) in (0, 1]."""
    theta = torch.zeros(len(pixels), 2, 3, device=pixels.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scales
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def _lower_resolution(pixels: Tensor, sides: Sequence[int | None]) -> Tensor:
    """Down to a small side and up again, as small generated images arrive."""
    lowered = pixels.clone()
    for side in sorted({side for side in sides if side is not None}):
        indices = [index for index, other in enumerate(sides) if other == side]
        small = F.interpolate(pixels[indices], size=(side, side), mode="area")
        lowered[indices] = F.interpolate(small, size=pixels.shape[-2:], mode="bilinear", align_corners=False)
    return lowered


def _cut_out(pixels: Tensor, plans: Sequence[Plan], share: float) -> Tensor:
    """Fill one square an image with a grey level; it may reach over the edge (DeVries and Taylor 2017)."""
    side = pixels.shape[-1]
    for image, plan in zip(pixels, plans, strict=True):
        top, left = (round(centre * side - share * side / 2) for centre in plan.cutout_centre)
        bottom, right = (start + round(share * side) for start in (top, left))
        image[:, max(0, top) : bottom, max(0, left) : right] = plan.cutout_level
    return pixels
