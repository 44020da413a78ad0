"""Random changes to training images, each image with its own seed: neither batch nor worker count changes an image.

Shapes: B images of a batch, P x P pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tailorset.training.contract import Augmentation

MAGNITUDE = 0.3  # of each operation's range: RandAugment's published 9 of 30
NUM_OPERATIONS = 2
UNCHANGED = ("identity", MAGNITUDE)
LOW_RESOLUTIONS = (0.25, 0.375, 0.5)

Operation = Callable[[Tensor, float], Tensor]  # (uint8 images, signed magnitude in [-1, 1]) -> uint8 images


def _torchvision() -> Any:
    """Return torchvision's functional transforms, imported lazily: that takes two seconds."""
    from torchvision.transforms.v2 import functional

    return functional


def _affine(
    degrees: float = 0.0, shift: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0.0, 0.0)
) -> Operation:
    """Return an affine operation; at magnitude 1: degrees of rotation and shear, shift in percent of the side."""

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


@dataclass(frozen=True)
class ImagePlan:
    """Changes to one image, as drawn."""

    operations: tuple[tuple[str, float], ...]
    zoom: float
    low_px: int | None
    cutout_px: int
    cutout_centre: tuple[float, float]
    cutout_level: float
    flip: bool


def augment(images: Tensor, seeds: Sequence[int], settings: Sequence[Augmentation]) -> Tensor:
    """Return images (B, 3, P, P) uint8 as (B, 3, P, P) float in [0, 1]; seeds, settings: one per image."""
    side = images.shape[-1]
    plans = [_plan(np.random.default_rng(seed), side, one) for seed, one in zip(seeds, settings, strict=True)]
    for step in range(NUM_OPERATIONS):
        images = _apply_operations(images, [plan.operations[step] for plan in plans])
    pixels = images.float() / 255
    _flip(pixels, [plan.flip for plan in plans])
    _zoom(pixels, [plan.zoom for plan in plans])
    _lower_resolution(pixels, [plan.low_px for plan in plans])
    _cut_out(pixels, plans)
    return pixels


def _plan(rng: np.random.Generator, side: int, settings: Augmentation) -> ImagePlan:
    """Draw everything whatever the settings: switching one change off leaves the others as they were."""
    names = rng.choice(list(OPERATIONS), NUM_OPERATIONS)
    signs = rng.choice((-MAGNITUDE, MAGNITUDE), NUM_OPERATIONS)
    low_px = round(side * rng.choice(LOW_RESOLUTIONS))
    operations = [(str(name), float(sign)) for name, sign in zip(names, signs, strict=True)]
    return ImagePlan(
        operations=tuple(operations) if settings.rand_augment else (UNCHANGED,) * NUM_OPERATIONS,
        zoom=float(rng.uniform(settings.zoom_out, 1.0)),
        low_px=low_px if rng.random() < settings.low_resolution else None,
        cutout_px=round(settings.cutout * side),
        cutout_centre=(float(rng.random()), float(rng.random())),
        cutout_level=float(rng.random()),
        flip=settings.flip and rng.random() < 0.5,
    )


def _apply_operations(images: Tensor, operations: Sequence[tuple[str, float]]) -> Tensor:
    """Apply one operation per image; images with the same one are changed together."""
    groups: dict[tuple[str, float], list[int]] = defaultdict(list)
    for index, operation in enumerate(operations):
        groups[operation].append(index)
    changed = images.clone()
    for (name, magnitude), indices in groups.items():
        changed[indices] = OPERATIONS[name](images[indices], magnitude)
    return changed


def _flip(pixels: Tensor, mirrored: Sequence[bool]) -> None:
    chosen = [index for index, is_mirrored in enumerate(mirrored) if is_mirrored]
    pixels[chosen] = pixels[chosen].flip(-1)


def _zoom(pixels: Tensor, scales: Sequence[float]) -> None:
    """Shrink each image about its centre; the margin shows its mirror image."""
    chosen = [index for index, scale in enumerate(scales) if scale < 1]
    if not chosen:
        return
    theta = torch.zeros(len(chosen), 2, 3, device=pixels.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / torch.tensor([scales[index] for index in chosen], device=pixels.device)
    shape = [len(chosen), *pixels.shape[1:]]
    grid = F.affine_grid(theta, shape, align_corners=False)
    pixels[chosen] = F.grid_sample(pixels[chosen], grid, padding_mode="reflection", align_corners=False)


def _lower_resolution(pixels: Tensor, sides: Sequence[int | None]) -> None:
    """Scale images down and up again, as small generated images are."""
    for side in sorted({side for side in sides if side is not None}):
        chosen = [index for index, other in enumerate(sides) if other == side]
        small = F.interpolate(pixels[chosen], size=(side, side), mode="area")
        pixels[chosen] = F.interpolate(small, size=pixels.shape[-2:], mode="bilinear", align_corners=False)


def _cut_out(pixels: Tensor, plans: Sequence[ImagePlan]) -> None:
    """Fill one square per image with a grey level; it may reach over the edge (DeVries and Taylor 2017)."""
    side = pixels.shape[-1]
    for image, plan in zip(pixels, plans, strict=True):
        top, left = (round(centre * side - plan.cutout_px / 2) for centre in plan.cutout_centre)
        bottom, right = (start + plan.cutout_px for start in (top, left))
        image[:, max(0, top) : bottom, max(0, left) : right] = plan.cutout_level
