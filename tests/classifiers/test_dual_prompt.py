"""The dual-prompt classifier: its zero-shot start, what training touches, what a saved folder gives back."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from plain_ways import encode_alone
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from tailorset.classifiers import load_classifier
from tailorset.classifiers.dual_prompt import Config, DualPrompt, build
from tailorset.classifiers.parts.label_prompts import misfit
from tailorset.classifiers.parts.text_towers import TextTower
from tailorset.clip.model import load_clip
from tailorset.records import LabelSpace
from tailorset.storage import checksums
from tailorset.storage.image_set import ImageSet, Mixture
from tailorset.training.loop import annotated_loss, train_epochs

KINDS = ("resnet", "vit", "custom_text", "tiny_siglip", "tiny_pe_core")


def config(backbone: str, **keys: object) -> Config:
    defaults = {"num_context_tokens": 4, "num_epochs": 2, "warmup_epochs": 0, "batch_size": 6}
    return Config.model_validate({"backbone": {"model": backbone}} | defaults | keys)


def pixels(images: ImageSet) -> Tensor:
    return images.images.float() / 255


def train(classifier: DualPrompt, data: ImageSet) -> list[dict[str, float]]:
    return list(train_epochs(classifier, data, classifier.optimizers(), classifier.config, seed=0))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_starts_with_the_ranking_of_zero_shot_clip(
    kind: str, backbones: dict[str, str], label_space: LabelSpace, val: ImageSet
) -> None:
    classifier = build(config(backbones[kind], global_weight=1.0, fusion=False), label_space)
    clip = load_clip(backbones[kind], "cpu")
    expected = clip.logits(pixels(val), clip.encode_texts(label_space.names, "a photo of a {}"))
    got = classifier.logits(pixels(val))
    # an image's negative score is the same for all labels: it shifts the image's logits alike
    torch.testing.assert_close(
        got - got.mean(1, keepdim=True), expected - expected.mean(1, keepdim=True), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_raw_clip_is_a_classifier_that_ranks_exactly_as_raw_clip_does(
    kind: str, backbones: dict[str, str], label_space: LabelSpace, real: ImageSet, val: ImageSet, tmp_path: Path
) -> None:
    """Also beside a fusion that changes every feature, and saved and loaded."""
    classifier, clip = build(config(backbones[kind]), label_space), load_clip(backbones[kind], "cpu")
    raw = classifier.raw_clip()
    for branch in classifier.fusion:
        torch.nn.init.normal_(branch.norm.weight)
    raw.calibrate(real.images, real.targets)
    raw.save(tmp_path)
    loaded = load_classifier(tmp_path)
    with torch.no_grad():
        expected = clip.logits(pixels(val), clip.encode_texts(label_space.names, "a photo of a {}"))
        cosines = expected - clip.logit_bias  # scaled; the calibration has a bias of its own
        scale, bias = raw.calibration.log_scale.exp(), raw.calibration.bias
        torch.testing.assert_close(loaded.logits(pixels(val)), scale * cosines + bias, atol=1e-4, rtol=0)
        assert not torch.allclose(classifier(pixels(val)), loaded(pixels(val)), atol=1e-3)
        scores = loaded(pixels(val))
        assert torch.equal(scores.argsort(0), expected.argsort(0))
        assert torch.equal(scores.argsort(1), expected.argsort(1))
        maps = loaded.spatial_maps(pixels(val))
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(len(val), len(label_space.names)))


@torch.no_grad()
def test_starts_unsaturated(backbones: dict[str, str], label_space: LabelSpace, val: ImageSet) -> None:
    probabilities = build(config(backbones["resnet"]), label_space)(pixels(val))
    assert probabilities.min() > 0.01
    assert probabilities.max() < 0.99


def test_calibration_lowers_the_loss_and_is_saved(
    backbones: dict[str, str], label_space: LabelSpace, real: ImageSet, val: ImageSet, tmp_path: Path
) -> None:
    classifier = build(config(backbones["resnet"], score_scale=400.0), label_space)
    with torch.no_grad():
        before, before_real = classifier.logits(pixels(val)), classifier(pixels(real))
        classifier.calibrate(real.images, real.targets)
        after, after_real = classifier.logits(pixels(val)), classifier(pixels(real))
    assert annotated_loss(after_real, real.targets, classifier.config) < annotated_loss(
        before_real, real.targets, classifier.config
    )
    scale, bias = classifier.calibration.log_scale.exp(), classifier.calibration.bias
    assert 0.01 < scale < 1  # overconfident scores of noise shrink, but never to nothing
    torch.testing.assert_close(after, scale * before + bias)
    classifier.save(tmp_path)
    assert torch.equal(load_classifier(tmp_path).calibration.bias, classifier.calibration.bias)


def test_the_same_classifier_is_saved_as_the_same_bytes(backbones: dict[str, str], tmp_path: Path) -> None:
    space = LabelSpace.load(Path(__file__).parents[2] / "data" / "labels" / "toybox.yaml")
    build(config(backbones["resnet"]), space).save(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())["label_space"]
    assert len(saved["confusable"]) > 2
    assert saved["confusable"] == sorted(map(sorted, space.confusable))
    assert load_classifier(tmp_path).label_space == space


@torch.no_grad()
def test_positions_follow_the_published_formula(
    backbones: dict[str, str], label_space: LabelSpace, val: ImageSet
) -> None:
    classifier = build(config(backbones["resnet"], global_weight=0.0, score_scale=100.0, fusion=False), label_space)
    visual, image = classifier.visual, pixels(val)[:1]
    layer4 = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem((image - 0.5) / 0.25)))))
    dense = visual.attnpool.c_proj(visual.attnpool.v_proj(layer4.flatten(2).transpose(1, 2)))[0]
    dense = dense / dense.norm(dim=-1, keepdim=True)
    positive, negative = (20 * dense @ text.T for text in classifier.text_features)  # (P, L)
    weights = positive.softmax(0)
    scores = torch.stack([5 * (negative * weights).sum(0), 5 * (positive * weights).sum(0)])
    torch.testing.assert_close(classifier(image)[0], scores.softmax(0)[1], atol=1e-5, rtol=1e-4)
    maps = classifier.spatial_maps(image)
    assert maps.shape == (1, 5, 2, 2)
    torch.testing.assert_close(maps.flatten(2)[0], weights.T, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels_at_once", [64, 2])
def test_labels_in_one_sequence_are_read_as_if_alone(
    kind: str, labels_at_once: int, backbones: dict[str, str], label_space: LabelSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TextTower, "labels_at_once", labels_at_once)
    prompts = build(config(backbones[kind]), label_space).prompts
    with torch.no_grad():
        prompts.contexts[1].normal_()
    found = prompts(range(len(label_space.names)))
    alone = encode_alone(prompts.tower, prompts.contexts, prompts.token_ids)
    expected = F.normalize(prompts.anchors + alone - prompts.initial, dim=-1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    (found * (direction := torch.randn_like(found))).sum().backward()
    gradient, prompts.contexts.grad = prompts.contexts.grad, None
    (expected * direction).sum().backward()
    assert gradient.abs().max() > 0.01
    torch.testing.assert_close(gradient, prompts.contexts.grad, atol=1e-4, rtol=1e-3)


def test_a_tower_whose_class_token_sees_all_is_refused() -> None:
    text = {"context_length": 12, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1, "embed_cls": True}
    vision = {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8}
    with pytest.raises(ValueError, match="choose a backbone with causal attention"):
        TextTower(open_clip.CustomTextCLIP(8, vision, text))


@pytest.mark.parametrize("kind", KINDS)
def test_training_changes_contexts_calibration_and_fusion_and_nothing_else(
    kind: str, backbones: dict[str, str], label_space: LabelSpace, real: ImageSet, synthetic: ImageSet
) -> None:
    classifier = build(config(backbones[kind]), label_space)
    tower = classifier.prompts.tower.model
    frozen = {name: value.clone() for name, value in tower.state_dict().items()}
    learned = {name: value.detach().clone() for name, value in classifier.named_parameters() if value.requires_grad}
    train(classifier, Mixture([(real, 1), (synthetic, 1)]))
    assert all(torch.equal(value, frozen[name]) for name, value in tower.state_dict().items())
    after = dict(classifier.named_parameters())
    assert {name for name in learned if not torch.equal(after[name], learned[name])} == set(learned)
    assert {name.split(".")[0] for name in learned} == {"prompts", "fusion", "calibration"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tuned_backbone_learns_and_is_saved_while_raw_clip_stays(
    kind: str, backbones: dict[str, str], label_space: LabelSpace, real: ImageSet, synthetic: ImageSet, tmp_path: Path
) -> None:
    classifier = build(config(backbones[kind], backbone_learning_rate=1.0e-3), label_space)
    raw, images = classifier.raw_clip(), pixels(real)
    before, start = raw(images), {name: one.detach().clone() for name, one in classifier.visual.named_parameters()}
    train(classifier, Mixture([(real, 1), (synthetic, 1)]))
    assert not [name for name, one in classifier.visual.named_parameters() if torch.equal(one, start[name])]
    classifier.eval().save(tmp_path)
    loaded = load_classifier(tmp_path)
    with torch.no_grad():
        assert torch.equal(raw(images), before)
        assert torch.equal(loaded(images), classifier(images))
    assert not any(one.requires_grad for one in loaded.visual.parameters())


def test_training_learns(
    backbones: dict[str, str], label_space: LabelSpace, real: ImageSet, synthetic: ImageSet
) -> None:
    keys = {"num_epochs": 12, "learning_rate": 0.05, "fusion_learning_rate": 0.01, "batch_size": 19}
    classifier = build(config(backbones["resnet"], **keys), label_space)
    losses = [epoch["loss"] for epoch in train(classifier, Mixture([(real, 1), (synthetic, 1)]))]
    assert losses[-1] < 0.7 * losses[0]


def test_label_subset_equals_the_columns_of_all(
    backbones: dict[str, str], label_space: LabelSpace, val: ImageSet
) -> None:
    classifier = build(config(backbones["resnet"]), label_space)
    for mode in (False, True):
        classifier.train(mode)
        classifier.fusion.eval()
        full = classifier(pixels(val))
        torch.testing.assert_close(classifier(pixels(val), [3, 0]), full[:, [3, 0]])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_saved_classifier_answers_alike_without_its_backbone(
    kind: str, backbones: dict[str, str], label_space: LabelSpace, real: ImageSet, synthetic: ImageSet, tmp_path: Path
) -> None:
    classifier = build(config(backbones[kind], num_epochs=1), label_space)
    with torch.enable_grad():
        train(classifier, Mixture([(real, 1), (synthetic, 1)]))
    classifier.eval().save(tmp_path / "classifier")
    path = tmp_path / "classifier" / "config.json"
    path.write_text(path.read_text().replace(backbones[kind], "local-dir:gone"))
    checksums.seal(path.parent)
    loaded = load_classifier(tmp_path / "classifier")
    assert loaded.labels == label_space.names
    images = torch.rand(2, 3, 50, 70)
    assert torch.equal(loaded(images), classifier(images))
    assert torch.equal(loaded._preprocess(images), load_clip(backbones[kind], "cpu").preprocess(images))
    with pytest.raises(ValueError, match="build it from its params"):
        loaded.train()


def test_a_folder_saved_with_the_former_augmentation_is_read(
    backbones: dict[str, str], label_space: LabelSpace, tmp_path: Path
) -> None:
    build(config(backbones["resnet"]), label_space).save(tmp_path)
    path = tmp_path / "config.json"
    description = json.loads(path.read_text())
    del description["config"]["augment"]
    description["config"] |= {"cutout": 0.5, "rand_augment": True, "low_resolution": 0.5, "zoom_out": 0.5}
    path.write_text(json.dumps(description))
    checksums.seal(tmp_path)
    assert load_classifier(tmp_path).labels == label_space.names


def test_damaged_folder_is_refused(backbones: dict[str, str], label_space: LabelSpace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dvc repro train_classifier"):
        load_classifier(tmp_path)
    build(config(backbones["resnet"]), label_space).save(tmp_path)
    weights = (tmp_path / "classifier.safetensors").read_bytes()
    (tmp_path / "classifier.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match=r"not hold a usable classifier .*differs from its checksum"):
        load_classifier(tmp_path)
    (tmp_path / checksums.SUMS).unlink()
    with pytest.raises(ValueError, match="not hold a usable classifier"):
        load_classifier(tmp_path)
    (tmp_path / "classifier.safetensors").write_bytes(weights)
    description = json.loads((tmp_path / "config.json").read_text())
    for key, value in (("config", None), ("vision", description["vision"] | {"vision_cfg": {"width": None}})):
        (tmp_path / "config.json").write_text(json.dumps(description | {key: value}))
        with pytest.raises(ValueError, match="not hold a usable classifier"):
            load_classifier(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(description | {"name": "dual_promt"}))
    with pytest.raises(ValueError, match="dual_prompt"):
        load_classifier(tmp_path)


def test_contexts_must_leave_room_for_the_longest_label(backbones: dict[str, str], label_space: LabelSpace) -> None:
    with pytest.raises(ValueError, match=r"'fish'.*choose 1 to 18"):
        build(config(backbones["resnet"], num_context_tokens=19), label_space)
    assert not config(backbones["resnet"], num_context_tokens=18).problems(label_space)
    (problem,) = config(backbones["resnet"], num_context_tokens=19).problems(label_space)  # before anything is loaded
    assert problem.startswith("train_classifier.num_context_tokens 19 is too many: 'fish'")
    assert not config("hf-hub:nobody/nothing", num_context_tokens=19).problems(label_space)
    assert "20 tokens; choose a shorter name with this one as an alias" in misfit(["a cup"], [20], 20, 1)
    assert build(config(backbones["resnet"], num_context_tokens=18), label_space).prompts.contexts.shape == (2, 18, 32)


@pytest.mark.parametrize(
    "keys",
    [{"num_contxt_tokens": 4}, {"augment": {"real": {"cutout": 2}}}, {"warmup_epochs": 2}, {"global_weight": -1}],
)
def test_wrong_settings_are_refused(keys: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(keys))):
        config("RN50", **keys)
