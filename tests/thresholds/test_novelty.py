"""Novelty of a photo: the limit, the stored file, and drawn photos next to other pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tailorset.clip.dense_features import dense_encoder
from tailorset.clip.model import load_clip
from tailorset.records import LabelSpace
from tailorset.thresholds.novelty import Novelty, fit_novelty
from tailorset.toybox.scenes import photo_scene, render, web_scene

ROOT = Path(__file__).resolve().parents[2]


def features(count: int, seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(9))
    return torch.randn(count, 6, generator=generator) @ mixing + shift


def test_it_is_the_mahalanobis_distance_in_units_of_its_limit() -> None:
    known, target, others = features(400, 0), features(300, 1), features(5, 2, shift=3)
    novelty = fit_novelty(known, target)
    estimate = LedoitWolf().fit(known.double().numpy())
    inverse = np.linalg.inv(estimate.covariance_)
    distances = [mahalanobis(row, estimate.location_, inverse) for row in others.double().numpy()]
    expected = torch.tensor(distances) / novelty.limit
    torch.testing.assert_close(novelty.of(others).double(), expected.double(), rtol=1e-3, atol=1e-3)
    assert (novelty.of(target) > 1).float().mean() == pytest.approx(0.01, abs=0.005)


def test_few_photos_of_many_features_have_a_limit() -> None:
    known = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    novelty = fit_novelty(known, known)
    assert torch.isfinite(novelty.of(known)).all()
    assert (novelty.of(10 * known) > 1).all()
    with pytest.raises(ValueError, match="1 training and 20 val photos are too few"):
        fit_novelty(known[:1], known)


def test_it_is_stored_as_tensors_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "novelty.safetensors"
    novelty = fit_novelty(features(50, 0), features(50, 1))
    novelty.save(path)
    assert torch.equal(Novelty.load(path).of(features(9, 3)), novelty.of(features(9, 3)))
    before = path.read_bytes()
    novelty.save(path)
    assert path.read_bytes() == before
    path.write_bytes(before[:40])
    with pytest.raises(
        ValueError, match=r"novelty.safetensors does not hold a limit of novelty.*dvc repro fit_thresholds"
    ):
        Novelty.load(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"novelty.safetensors is missing: .*`dvc repro fit_thresholds` makes it$"):
        Novelty.load(path)


def test_drawn_photos_are_told_from_noise_plain_colours_and_drawings() -> None:
    """By the embedded backbone; docs/decisions/thresholds.md has the figures of more pictures."""
    names = LabelSpace.load(ROOT / "data" / "labels" / "toybox.yaml").names
    clip = load_clip(f"local-dir:{ROOT}/models/foundation/toybox/backbone", "cpu")
    encode = dense_encoder(clip.model.visual)

    def looked(pictures: list[np.ndarray]) -> Tensor:
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            return encode(clip.preprocess(images))[0].mean(1)

    rng = np.random.default_rng(0)
    photos = looked([render(photo_scene(rng, names), 64) for _ in range(500)])
    novelty = fit_novelty(photos[:250], photos[250:375])
    usual = novelty.of(photos[375:])
    assert (usual > 1).float().mean() < 0.05
    colours = rng.integers(0, 256, (60, 1, 1, 3), dtype=np.uint8)
    for others in (
        list(rng.integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)),
        list(np.broadcast_to(colours, (60, 64, 64, 3))),
        [render(web_scene(rng, names), 64) for _ in range(60)],
    ):
        scores = torch.cat([usual, novelty.of(looked(others))])
        assert roc_auc_score([False] * len(usual) + [True] * 60, scores) > 0.95
