"""Settings of the dual-prompt classifier that are off by default: their effect, and none where they are off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tailorset.classifiers import load_classifier
from tailorset.classifiers.dual_prompt import Config, DualPrompt, build
from tailorset.clip.dense_features import crops
from tailorset.records import LabelSpace
from tailorset.storage.image_set import ImageSet, Mixture
from tailorset.training.loop import train_epochs

KINDS = ("resnet", "vit", "custom_text", "tiny_siglip", "tiny_pe_core")
OFF = {"separate_tokens": 0, "cache": None, "crop_weight": 0, "interpolation": [], "choose_on_seen": False}


def config(backbone: str, **keys: object) -> Config:
    defaults = {"num_context_tokens": 4, "num_epochs": 1, "warmup_epochs": 0, "batch_size": 6}
    return Config.model_validate({"backbone": {"model": backbone}} | defaults | keys)


def seeded(settings: Config, label_space: LabelSpace) -> DualPrompt:
    torch.manual_seed(0)
    return build(settings, label_space)


def pixels(images: ImageSet) -> Tensor:
    return images.images.float() / 255


def test_settings_that_are_off_leave_the_saved_bytes_as_they_are(
    backbones: dict[str, str], label_space: LabelSpace, real: ImageSet, synthetic: ImageSet, tmp_path: Path
) -> None:
    for name, keys in (("without", {}), ("off", OFF)):
        classifier = seeded(config(backbones["resnet"], **keys), label_space)
        optimizers = classifier.optimizers()
        list(train_epochs(classifier, Mixture([(real, 1), (synthetic, 1)]), optimizers, classifier.config, seed=0))
        classifier.eval().save(tmp_path / name)
    for file in ("config.json", "classifier.safetensors"):
        assert (tmp_path / "without" / file).read_bytes() == (tmp_path / "off" / file).read_bytes()
    assert not OFF.keys() & json.loads((tmp_path / "off" / "config.json").read_text())["config"].keys()


def gradients(classifier: DualPrompt, images: Tensor, source: str) -> tuple[Tensor, Tensor]:
    """Of the contexts, (2, M, W), and of the tokens for generated images."""
    classifier.zero_grad()
    classifier.train().of_sources(images, [source] * len(images)).square().sum().backward()
    prompts = classifier.prompts
    return prompts.contexts.grad.clone(), prompts.generated_tokens.grad.clone()


@pytest.mark.parametrize("kind", KINDS)
def test_generated_images_teach_the_shared_tokens_and_their_own_only(
    kind: str, backbones: dict[str, str], label_space: LabelSpace, val: ImageSet
) -> None:
    classifier = seeded(config(backbones[kind], separate_tokens=3), label_space)
    contexts, generated = gradients(classifier, pixels(val), "synthetic")
    assert contexts[:, 1:].abs().max() == 0
    assert min(float(contexts[:, :1].abs().max()), float(generated.abs().max())) > 0
    contexts, generated = gradients(classifier, pixels(val), "real")
    assert generated.abs().max() == 0
    assert min(float(contexts[:, :1].abs().max()), float(contexts[:, 1:].abs().max())) > 0
    nothing_shared = seeded(config(backbones[kind], separate_tokens=4), label_space)
    assert gradients(nothing_shared, pixels(val), "synthetic")[0].abs().max() == 0


def test_each_image_of_a_batch_is_compared_with_the_prompts_of_its_source(
    backbones: dict[str, str], label_space: LabelSpace, val: ImageSet
) -> None:
    classifier = seeded(config(backbones["resnet"], separate_tokens=2, fusion=False), label_space).train()
    with torch.no_grad():
        torch.testing.assert_close(  # both start alike
            classifier.of_sources(pixels(val), ["synthetic"] * len(val)), classifier(pixels(val))
        )
        classifier.prompts.generated_tokens.normal_()
        whole = {one: classifier.of_sources(pixels(val), [one] * len(val), [3, 0]) for one in ("real", "synthetic")}
        sources = ["real", "synthetic"] * (len(val) // 2)
        mixed = classifier.of_sources(pixels(val), sources, [3, 0])
        assert not torch.allclose(whole["real"], whole["synthetic"], atol=1e-3)
        torch.testing.assert_close(mixed[::2], whole["real"][::2])
        torch.testing.assert_close(mixed[1::2], whole["synthetic"][1::2])
        torch.testing.assert_close(classifier.eval()(pixels(val), [3, 0]), whole["real"])


def test_training_changes_both_kinds_of_tokens_and_a_saved_classifier_needs_neither(
    backbones: dict[str, str], label_space: LabelSpace, real: ImageSet, synthetic: ImageSet, tmp_path: Path
) -> None:
    classifier = seeded(config(backbones["resnet"], separate_tokens=2), label_space)
    before = {name: value.detach().clone() for name, value in classifier.prompts.named_parameters()}
    data = Mixture([(real, 1), (synthetic, 1)])
    list(train_epochs(classifier, data, classifier.optimizers(), classifier.config, seed=0))
    after = dict(classifier.prompts.named_parameters())
    assert not torch.equal(after["contexts"][:, 2:], before["contexts"][:, 2:])
    assert not torch.equal(after["generated_tokens"], before["generated_tokens"])
    assert not torch.equal(after["generated_tokens"], after["contexts"][:, 2:])
    classifier.eval().save(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_classifier(tmp_path)(pixels(real)), classifier(pixels(real)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"separate_tokens": 5}, "separate_tokens 5 is more than num_context_tokens 4"),
        ({"separate_tokens": -1}, "separate_tokens"),
        ({"separate_tokens": 2, "train_on": ["real"]}, r"need train_on \[real, synthetic\]"),
        ({"cache": {}, "train_on": ["synthetic"]}, r"need train_on \[real, synthetic\]"),
        ({"cache": {}, "choose_on_seen": True}, "choose_on_seen uses seen labels only: remove one"),
        ({"interpolation": [1.5]}, "interpolation"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config("RN50", **keys)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_saved_classifier_also_looks_at_crops_and_training_does_not(
    kind: str, backbones: dict[str, str], label_space: LabelSpace, tmp_path: Path
) -> None:
    trained = seeded(config(backbones[kind], crop_weight=0.5), label_space)
    trained.save(tmp_path)
    images = torch.rand(3, 3, 40, 50)
    whole = trained.logits(images)
    best = torch.stack([trained.logits(crop) for crop in crops(images)]).amax(0)
    assert (best != whole).all()
    served = load_classifier(tmp_path)
    torch.testing.assert_close(served(images), ((whole + best) / 2).sigmoid())
    torch.testing.assert_close(served.look(images)[0], served(images))
    torch.testing.assert_close(served(images, [3, 0]), served(images)[:, [3, 0]])
    looked_at: list[tuple[int, ...]] = []
    encode = served.encode
    served.encode = lambda pixels: (looked_at.append(tuple(pixels.shape)), encode(pixels))[1]
    served.describe(images)
    assert len(looked_at) == 1, "features do not need the crops"
    assert trained.raw_clip().crop_weight == 0
    trained.raw_clip().save(tmp_path / "raw")
    assert load_classifier(tmp_path / "raw").crop_weight == 0
