"""The cache of generated images: its formula, what it finds, what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from tailorset.classifiers.parts import support_cache
from tailorset.classifiers.parts.support_cache import CacheConfig, SupportCache

NUM_IMAGES, WIDTH = 12, 16


@pytest.fixture
def features() -> Tensor:
    return F.normalize(torch.randn(NUM_IMAGES, WIDTH, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture
def targets() -> Tensor:
    """Three labels: each image shows the first or the second, the third is not annotated."""
    shown = torch.arange(NUM_IMAGES) % 3 == 0
    return torch.stack([shown, ~shown, torch.full_like(shown, True)], 1).to(torch.int8) * torch.tensor([1, 1, -1])


def filled(features: Tensor, targets: Tensor, alpha: float, beta: float) -> SupportCache:
    cache = SupportCache(CacheConfig())
    cache.fill(features, targets)
    cache.use({"cache_alpha": alpha, "cache_beta": beta})
    return cache


def test_an_empty_cache_and_one_without_weight_change_nothing(features: Tensor, targets: Tensor) -> None:
    logits = torch.randn(NUM_IMAGES, 3)
    empty = SupportCache(None)
    assert empty(logits, features) is logits
    assert not empty.state_dict()
    cache = filled(features, targets, 0, 20)
    assert torch.equal(cache(logits, features), logits)
    cache.use({"best_epoch": 3})
    assert cache(logits, features) is logits
    assert not cache.state_dict()


def test_an_image_finds_its_own_labels(features: Tensor, targets: Tensor) -> None:
    added = filled(features, targets, 1, 200)(torch.zeros(NUM_IMAGES, 3), features)
    assert torch.equal(added[:, :2] > 0, targets[:, :2] == 1)
    assert torch.equal(added[:, 2], torch.zeros(NUM_IMAGES))  # nothing is known of it


def test_the_formula_is_tip_adapters_with_affinities_as_shares(features: Tensor, targets: Tensor) -> None:
    photos = F.normalize(torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1)), dim=-1)
    affinities = torch.exp(-7 * (1 - photos @ features.T))
    values = (targets == 1).float()
    shares = affinities @ values / affinities.sum(1, keepdim=True)
    expected = 3 * (shares - values.mean(0))
    got = filled(features, targets, 3, 7)(torch.zeros(5, 3), photos)
    torch.testing.assert_close(got[:, :2], expected[:, :2])
    columns = filled(features, targets, 3, 7)(torch.zeros(5, 2), photos, [1, 0])
    torch.testing.assert_close(columns, expected[:, [1, 0]])


def test_a_photo_as_far_from_all_images_gets_nothing(targets: Tensor) -> None:
    features = torch.eye(NUM_IMAGES + 1)
    photo = features[-1:]
    added = filled(features[:-1], targets, 5, 20)(torch.zeros(1, 3), photo)
    torch.testing.assert_close(added, torch.zeros(1, 3))


def test_all_pairs_are_tried_on_any_number_of_images(
    features: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support_cache, "AT_ONCE", 5)
    cache = SupportCache(CacheConfig(alpha=(0, 2), beta=(1, 9)))
    cache.fill(features, targets)
    logits = torch.randn(NUM_IMAGES, 3)
    for setting, found in cache.trials(logits, features):
        expected = filled(features, targets, setting["cache_alpha"], setting["cache_beta"])(logits, features)
        torch.testing.assert_close(found, expected)
    assert len(list(cache.trials(logits, features))) == 4


@pytest.mark.parametrize("keys", [{"alpha": []}, {"alpha": [-1]}, {"beta": [0]}, {"max_images": 0}, {"gamma": 1}])
def test_wrong_settings_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(keys))):
        CacheConfig.model_validate(keys)
