"""A linear layer on the feature map: a probe of frozen features, or a fine-tuned tower."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.metrics import average_precision_score
from tiny_backbone import IMAGE_PX
from torch import Tensor
from torch.nn import functional as F

from tailorset.classifiers import load_classifier
from tailorset.classifiers.linear_head import Config, LinearHead, build
from tailorset.clip.model import OpenClip
from tailorset.records import LabelSpace


def made(backbone: str, label_space: LabelSpace, **settings: float) -> LinearHead:
    return build(Config(backbone=OpenClip(model=backbone), **settings), label_space)


def learn(classifier: LinearHead, images: Tensor, targets: Tensor, steps: int) -> None:
    optimizers = classifier.optimizers().values()
    classifier.train()
    for _ in range(steps):
        loss = F.binary_cross_entropy(classifier(images), targets)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    classifier.eval()


@pytest.fixture
def squares() -> tuple[Tensor, Tensor]:
    """Return noisy images (40, 3, P, P), half of which have a bright square of a random colour, and targets (40, 5)."""
    generator = torch.Generator().manual_seed(0)
    images = 0.3 * torch.rand(40, 3, IMAGE_PX, IMAGE_PX, generator=generator)
    targets = torch.zeros(40, 5)
    for index in range(0, 40, 2):
        channel = index // 2 % 3
        images[index, channel, : IMAGE_PX // 2, : IMAGE_PX // 2] = 1
        targets[index, channel] = 1
    return images, targets


@pytest.mark.parametrize("tower", ["resnet", "vit", "tiny_siglip", "tiny_pe_core"])
def test_a_probe_reads_what_the_features_hold_and_leaves_the_tower_alone(
    tower: str, backbones: dict[str, str], label_space: LabelSpace, squares: tuple[Tensor, Tensor]
) -> None:
    images, targets = squares
    classifier = made(backbones[tower], label_space, learning_rate=0.03)
    classifier.calibrate((255 * images).byte(), targets)
    before = {name: value.clone() for name, value in classifier.visual.state_dict().items()}
    learn(classifier, images, targets, 200)
    with torch.no_grad():
        scores = classifier(images)[:, :3]
    assert average_precision_score(targets[:, :3], scores, average="macro") > 0.95
    assert all(torch.equal(value, before[name]) for name, value in classifier.visual.state_dict().items())


def test_calibration_standardises_the_feature_map(
    backbones: dict[str, str], label_space: LabelSpace, squares: tuple[Tensor, Tensor]
) -> None:
    images, targets = squares
    classifier = made(backbones["resnet"], label_space, batch_size=16)  # the last batch is smaller
    classifier.calibrate((255 * images).byte(), targets)
    with torch.no_grad():
        features = classifier.features((255 * images).byte().float() / 255).flatten(0, 1)
    varies = classifier.spread > 1e-3 * classifier.spread.max()
    torch.testing.assert_close(features.mean(0), torch.zeros(features.shape[1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(features.std(0)[varies], torch.ones(int(varies.sum())), atol=2e-2, rtol=0)


def test_a_trained_tower_is_saved_and_the_untrained_copy_stays(
    backbones: dict[str, str], label_space: LabelSpace, squares: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    images, targets = squares
    classifier = made(backbones["resnet"], label_space, backbone_learning_rate=1e-3)
    raw = classifier.raw_clip()
    with torch.no_grad():
        start, features = raw(images), raw.look(images)[1]
    learn(classifier, images, targets, 5)
    with torch.no_grad():
        trained = classifier(images)
        assert torch.equal(raw(images), start)
        assert torch.equal(raw.look(images)[1], features)
    assert not torch.allclose(trained, start)
    classifier.save(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_classifier(tmp_path)(images), trained)


def test_the_columns_of_some_labels_are_those_of_all(backbones: dict[str, str], label_space: LabelSpace) -> None:
    classifier = made(backbones["resnet"], label_space)
    torch.nn.init.normal_(classifier.head.weight)
    images = torch.rand(3, 3, IMAGE_PX, IMAGE_PX)
    with torch.no_grad():
        assert torch.equal(classifier(images, [3, 1]), classifier(images)[:, [3, 1]])
