"""Augmentation: it depends on the image alone, and it leaves visible what the labels say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from augmentation import label_of, visible_shares
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from tailorset.project.presets import load_preset, preset_names
from tailorset.seeding import numpy_rng
from tailorset.storage.image_set import ImageSet
from tailorset.toybox.objects import DRAWINGS
from tailorset.toybox.oracle import load_oracle
from tailorset.toybox.scenes import Scene, photo_scene, render, web_scene
from tailorset.training.augment import OPERATIONS, augment
from tailorset.training.contract import Augmentation, AugmentConfig, TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = Augmentation(cutout=0.5, rand_augment=True)
ALL = Augmentation(flip=True, cutout=0.5, rand_augment=True, low_resolution=0.5, zoom_out=0.5)
LEAST_VISIBLE = 0.97
OF_COCO = ("coco", "coco_fast", "coco_sdxl", "nus_wide", "paper")  # presets whose photos show objects of such sizes
# Longer side of the largest box of a label, as a share of the photo's: ten quantiles of 340 labels of 100 photos
COCO_SIZES = (0.046, 0.081, 0.121, 0.150, 0.204, 0.289, 0.380, 0.508, 0.636, 0.982)
DRAWN_PX, SEEN_PX, PHOTO_PX = 64, 128, 64  # of generated images, as the backbone gets them, of photos


def test_it_depends_on_the_image_seed_only(real: ImageSet) -> None:
    seeds = list(range(12))
    together = augment(real.images, seeds, [ALL] * 12)
    alone = torch.cat([augment(real.images[[i]], [seeds[i]], [ALL]) for i in range(12)])
    torch.testing.assert_close(together, alone)
    assert together.min() >= 0
    assert together.max() <= 1
    assert not torch.equal(together, augment(real.images, [seed + 1 for seed in seeds], [ALL] * 12))


def test_images_of_a_batch_are_augmented_by_their_own_settings(real: ImageSet) -> None:
    seeds, settings = list(range(12)), [ALL, Augmentation()] * 6
    mixed = augment(real.images, seeds, settings)
    torch.testing.assert_close(mixed[::2], augment(real.images[::2], seeds[::2], [ALL] * 6))
    assert torch.equal(mixed[1::2], real.images[1::2].float() / 255)


def test_off_is_the_default_and_changes_nothing(real: ImageSet) -> None:
    assert AugmentConfig() == TrainingConfig().augment
    settings = [AugmentConfig().real, AugmentConfig().synthetic] * 6
    assert torch.equal(augment(real.images, [0] * 12, settings), real.images.float() / 255)


def test_half_of_the_images_are_mirrored(real: ImageSet) -> None:
    images, settings = real.images[:1].expand(100, -1, -1, -1), [Augmentation(flip=True)] * 100
    flipped = augment(images, list(range(100)), settings)
    mirrored = [torch.equal(image, images[0].flip(-1) / 255) for image in flipped]
    kept = [torch.equal(image, images[0] / 255) for image in flipped]
    assert sum(mirrored) + sum(kept) == 100
    assert 30 < sum(mirrored) < 70


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "identity"])
def test_every_operation_changes_an_image_and_keeps_its_form(name: str) -> None:
    image = torch.randint(30, 200, (1, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    changed = OPERATIONS[name](image, 0.3)
    assert changed.shape == image.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, image)


def drawn(scenes: list[Scene], image_px: int) -> Tensor:
    """(N, 3, P, P) uint8."""
    return torch.from_numpy(np.stack([render(scene, image_px) for scene in scenes])).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def visible_in_photos() -> Callable[[Augmentation], float]:
    """Share of a photo's objects whose trace is still there, at least by half.

    An object's trace is what it changes in the picture: the same scene is drawn with it and with it moved out of sight.
    """
    scenes = [photo_scene(numpy_rng("visible photo", i), tuple(DRAWINGS)) for i in range(100)]
    pairs = [(scene, number) for scene in scenes for number in range(len(scene.items))]
    without = [replace(s, items=(*s.items[:n], replace(s.items[n], x=9.0), *s.items[n + 1 :])) for s, n in pairs]
    images, empty = drawn([scene for scene, _ in pairs], PHOTO_PX), drawn(without, PHOTO_PX)

    def trace(settings: Augmentation) -> Tensor:
        seeds = list(range(len(images)))
        both = [augment(pixels, seeds, [settings] * len(seeds)) for pixels in (images, empty)]
        return (both[0] - both[1]).abs().sum((1, 2, 3))

    whole = trace(Augmentation())
    return lambda settings: float((trace(settings) >= 0.5 * whole).float().mean())


@pytest.fixture(scope="module")
def visible_in_drawings() -> Callable[[Augmentation], float]:
    """Share of the objects in drawings like the generator's that the oracle still finds.

    It looks at each picture from farther and from nearer, as a person would: it was trained on drawings of one scale.
    """
    oracle = load_oracle(ROOT / "models" / "foundation" / "toybox" / "oracle")
    scenes = [web_scene(numpy_rng("visible drawing", i), oracle.labels, 1 + i % 2) for i in range(300)]
    images = tvf.resize(drawn(scenes, DRAWN_PX), [SEEN_PX, SEEN_PX], InterpolationMode.BICUBIC)
    present = torch.tensor([[name in {item.label for item in s.items} for name in oracle.labels] for s in scenes])

    @torch.no_grad()
    def found(settings: Augmentation) -> Tensor:
        pixels = augment(images, list(range(len(images))), [settings] * len(images))
        sides = range(DRAWN_PX, 2 * DRAWN_PX + 1, 8)
        looks = [oracle(F.interpolate(pixels, size=(side, side), mode="area"))[..., 0] for side in sides]
        return torch.stack(looks).amax(0) > 0

    plain = found(Augmentation())
    assert plain[present].float().mean() > 0.97
    assert plain[~present].float().mean() < 0.01  # it does not simply see everything everywhere
    return lambda settings: float(found(settings)[present & plain].float().mean())


@pytest.fixture(scope="module")
def visible_at_the_sizes_of_coco() -> Callable[[Augmentation], float]:
    """Share of textured boxes, as large as COCO's objects, that keep half of their trace."""
    rng = numpy_rng("visible box")
    labelled = []
    for size in COCO_SIZES:
        for _ in range(30):
            pixels = rng.integers(0, 256, (56, 56, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
            width, height = (224 * size * np.array([1.0, 0.53]))[rng.permutation(2)]
            left, top = rng.random(2) * (224 - width, 224 - height)
            labelled.append(label_of(pixels, np.array([[left, top, width, height]])))
    return lambda settings: visible_shares(labelled, settings)["all"]


@pytest.mark.parametrize("preset", OF_COCO)
def test_presets_for_photos_keep_objects_as_small_as_those_of_coco(
    preset: str, visible_at_the_sizes_of_coco: Callable[[Augmentation], float]
) -> None:
    config = load_preset(preset, ROOT / "presets").train_classifier.config
    assert isinstance(config, TrainingConfig)
    assert visible_at_the_sizes_of_coco(config.augment.real) >= LEAST_VISIBLE
    assert visible_at_the_sizes_of_coco(PUBLISHED) < 0.93


@pytest.mark.parametrize("preset", [name for name in preset_names(ROOT / "presets") if name not in OF_COCO])
def test_what_is_labelled_present_stays_visible(
    preset: str,
    visible_in_photos: Callable[[Augmentation], float],
    visible_in_drawings: Callable[[Augmentation], float],
) -> None:
    config = load_preset(preset, ROOT / "presets").train_classifier.config
    assert isinstance(config, TrainingConfig)
    assert visible_in_photos(config.augment.real) >= LEAST_VISIBLE
    assert visible_in_drawings(config.augment.synthetic) >= LEAST_VISIBLE


@pytest.mark.parametrize("settings", [PUBLISHED, ALL], ids=["as published", "all at once, as once shipped"])
def test_these_oracles_notice_an_augmentation_that_erases_objects(
    settings: Augmentation,
    visible_in_photos: Callable[[Augmentation], float],
    visible_in_drawings: Callable[[Augmentation], float],
) -> None:
    assert visible_in_photos(settings) < LEAST_VISIBLE - 0.05
    assert visible_in_drawings(settings) < LEAST_VISIBLE - 0.3
