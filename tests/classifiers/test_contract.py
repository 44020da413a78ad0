"""Every classifier plug-in keeps the folder's contract."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tailorset.classifiers import Classifier, load_classifier
from tailorset.plugins import load_plugin, plugin_config, plugin_names
from tailorset.records import LabelSpace
from tailorset.training.contract import TrainingConfig


@pytest.mark.parametrize("name", plugin_names("classifiers"))
def test_contract(name: str, backbones: dict[str, str], label_space: LabelSpace, tmp_path: Path) -> None:
    small = {"backbone": {"model": backbones["resnet"]}, "num_context_tokens": 4}  # keys that not every variant has
    known = load_plugin("classifiers", name).Config.model_fields
    config = plugin_config("classifiers", {"name": name} | {key: small[key] for key in small if key in known})
    assert isinstance(config, TrainingConfig)
    classifier = load_plugin("classifiers", name).build(config, label_space, torch.device("cpu"))
    assert isinstance(classifier, Classifier)
    assert isinstance(classifier, nn.Module)
    assert not classifier.training

    images = torch.rand(3, 3, 40, 56)
    with torch.no_grad():
        probabilities, maps = classifier(images), classifier.spatial_maps(images)
        looked, features = classifier.look(images)
        torch.testing.assert_close(classifier.describe(images), features)
    torch.testing.assert_close(looked, probabilities)
    assert features.ndim == 2
    assert len(features) == 3
    assert probabilities.shape == (3, len(label_space.names))
    assert ((probabilities > 0) & (probabilities < 1)).all()
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(3, len(label_space.names)))

    modules = classifier.learned_modules().values()
    trained = {id(p) for module in modules for p in module.parameters() if p.requires_grad}
    stepped = {
        id(p) for optimizer in classifier.optimizers().values() for g in optimizer.param_groups for p in g["params"]
    }
    assert trained == stepped == {id(p) for p in classifier.parameters() if p.requires_grad}

    classifier.save(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_classifier(tmp_path)(images), probabilities)
