"""Tiny random CLIPs, a label space and annotated random images."""

from __future__ import annotations

import pytest
import torch
from tiny_backbone import IMAGE_PX, TIMM, VISION, write_backbone, write_timm_backbone

from tailorset.records import LabelSpace
from tailorset.storage.image_set import ImageSet


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("backbones")
    names = {vision: write_backbone(root / vision, vision) for vision in VISION}
    names |= {tower: write_timm_backbone(root / tower, tower) for tower in TIMM}
    return names | {"custom_text": write_backbone(root / "custom_text", "resnet", custom_text=True)}


@pytest.fixture
def label_space() -> LabelSpace:
    labels = [{"name": name, "seen": name not in ("fish", "key")} for name in ("fish", "ball", "key", "car", "hat")]
    return LabelSpace.model_validate({"name": "tiny", "labels": labels})


def image_set(label_space: LabelSpace, count: int, kind: str, seed: int = 0) -> ImageSet:
    """Random images; kind: `real` annotates seen labels, `synthetic` unseen ones, `full` all."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, IMAGE_PX, IMAGE_PX), generator=generator, dtype=torch.uint8)
    targets = torch.randint(0, 2, (count, len(label_space.names)), generator=generator, dtype=torch.int8)
    hidden = {"real": label_space.unseen, "synthetic": label_space.seen, "full": ()}[kind]
    targets[:, [label_space.index(name) for name in hidden]] = -1
    targets[0] = torch.where(targets[0] < 0, targets[0], 1)
    source = "synthetic" if kind == "synthetic" else "real"
    return ImageSet(tuple(f"{kind}{index}" for index in range(count)), images, targets, source)


@pytest.fixture
def real(label_space: LabelSpace) -> ImageSet:
    return image_set(label_space, 12, "real")


@pytest.fixture
def synthetic(label_space: LabelSpace) -> ImageSet:
    return image_set(label_space, 7, "synthetic", seed=1)


@pytest.fixture
def val(label_space: LabelSpace) -> ImageSet:
    return image_set(label_space, 10, "full", seed=2)
