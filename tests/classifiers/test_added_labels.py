"""Labels that a classifier learns later: the scores of its other labels stay the same, to the last digit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny_backbone import write_backbone, write_timm_backbone
from torch import Tensor

from tailorset.classifiers import extend_classifier, load_classifier
from tailorset.classifiers.dual_prompt import Config, DualPrompt, build
from tailorset.datasets.toybox import Config as ToyboxConfig
from tailorset.datasets.toybox import build as build_toybox
from tailorset.images.codec import decode_image, square_pixels
from tailorset.records import Label, LabelSpace
from tailorset.storage.image_set import ImageSet
from tailorset.training.fit import fit
from tailorset.training.images import only_for
from tests.tiny_classifier import image_set

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def config(backbone: str, **keys: object) -> Config:
    defaults = {"num_context_tokens": 4, "num_epochs": 2, "warmup_epochs": 0, "batch_size": 6}
    return Config.model_validate({"backbone": {"model": backbone}} | defaults | keys)


def save_trained(settings: Config, space: LabelSpace, folder: Path) -> None:
    """Save a classifier whose learned parts are not what they start as."""
    torch.manual_seed(3)
    classifier = build(settings, space)
    assert classifier.prompts is not None
    with torch.no_grad():
        classifier.prompts.contexts.add_(torch.randn_like(classifier.prompts.contexts))
        classifier.calibration.log_scale.fill_(0.3)
        for branch in classifier.fusion:
            torch.nn.init.normal_(branch.norm.weight, std=0.3)
    classifier.train().eval()
    classifier.save(folder)


def grow(settings: Config, folder: Path, space: LabelSpace, target: Path) -> DualPrompt:
    """Save a classifier with added labels that have learned something, and load it."""
    extension = extend_classifier(settings, folder, space, CPU)
    with torch.no_grad():
        for module in extension.learned_modules().values():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
    extension.grown().save(target)
    return load_classifier(target)


def added_space(space: LabelSpace, *names: str) -> LabelSpace:
    return space.grown([Label(name=name, seen=False) for name in names])


@torch.no_grad()
@pytest.mark.parametrize("fusion", [True, False])
def test_on_photos_of_the_toybox_no_other_score_changes(fusion: bool, tmp_path: Path) -> None:
    space = LabelSpace.load(ROOT / "data" / "labels" / "toybox.yaml")
    before = LabelSpace.model_validate({"name": "toybox", "labels": space.labels[1:]})  # without the umbrella
    settings = config(f"local-dir:{ROOT}/models/foundation/toybox/backbone", fusion=fusion)
    save_trained(settings, before, tmp_path / "before")
    base = load_classifier(tmp_path / "before")
    photos = build_toybox(ToyboxConfig(), space, 0).samples("test")
    pixels = torch.stack([square_pixels(decode_image(next(photos).png), base.image_px) for _ in range(9)]).float() / 255

    once = grow(settings, tmp_path / "before", added_space(before, "umbrella"), tmp_path / "once")
    twice = grow(settings, tmp_path / "once", added_space(before, "umbrella", "drum", "lamp"), tmp_path / "twice")
    scores, wider, widest = (classifier(pixels) for classifier in (base, once, twice))
    assert (once.groups, twice.groups) == ([19, 1], [19, 1, 2])
    assert wider.shape == (9, 20)
    assert widest.shape == (9, 22)
    assert (wider[:, :19] - scores).abs().max() <= 1e-6
    assert (widest[:, :20] - wider).abs().max() <= 1e-6
    assert (wider[:1, :19] - base(pixels[:1])).abs().max() > 0  # they are photos, and differ
    looked, _ = twice.look(pixels)
    assert torch.equal(looked, widest)
    torch.testing.assert_close(twice(pixels, [1, 20]), widest[:, [1, 20]])
    torch.testing.assert_close(twice.spatial_maps(pixels).sum((2, 3)), torch.ones(9, 22))


@pytest.mark.parametrize("kind", ["resnet", "vit", "tiny_siglip", "tiny_pe_core"])
def test_only_the_added_label_learns(
    kind: str, backbones: dict[str, str], label_space: LabelSpace, tmp_path: Path
) -> None:
    settings = config(backbones[kind], added_label_learning_rate=0.05)
    save_trained(settings, label_space, tmp_path / "before")
    base, space = load_classifier(tmp_path / "before"), added_space(label_space, "cup")
    images = image_set(space, 24, "full")
    data = only_for(images, [5])
    val = ImageSet(images.ids, images.images, images.targets)
    extension = extend_classifier(settings, tmp_path / "before", space, CPU)
    state = {key: value.clone() for key, value in extension.base.state_dict().items()}
    kept, history = fit(extension, data, val, space, settings, 0, tmp_path / "work")
    assert [row["epoch"] for row in history] == [-1, 0, 1, 2]
    assert extension.text.residual.abs().max() > 0
    assert all(torch.equal(value, state[key]) for key, value in extension.base.state_dict().items())
    with torch.no_grad():
        grown, pixels = kept.grown(), images.images.float() / 255
        assert torch.equal(grown.logits(pixels)[:, :5], base.logits(pixels))  # a sigmoid's last digit varies by shape
        assert torch.equal(grown(pixels), kept(pixels))


@pytest.mark.parametrize("rate", [0.0, 1.0e-3])
@pytest.mark.parametrize("kind", ["vit", "tiny_siglip"])
def test_a_backbone_with_other_weights_adds_no_label(
    kind: str, rate: float, backbones: dict[str, str], label_space: LabelSpace, tmp_path: Path
) -> None:
    backbone = Path(shutil.copytree(backbones[kind].removeprefix("local-dir:"), tmp_path / "backbone"))
    settings = config(f"local-dir:{backbone}", backbone_learning_rate=rate)
    save_trained(settings, label_space, tmp_path / "before")
    extend_classifier(settings, tmp_path / "before", added_space(label_space, "cup"), CPU)
    write = write_timm_backbone if kind == "tiny_siglip" else write_backbone
    write(backbone, kind, seed=1)
    with pytest.raises(ValueError, match=r"other weights than the classifier was trained with.*make run"):
        extend_classifier(settings, tmp_path / "before", added_space(label_space, "cup"), CPU)
    load_classifier(tmp_path / "before")  # it has its own copy of the tower


@torch.no_grad()
def test_an_added_label_starts_where_the_learned_contexts_put_it(
    backbones: dict[str, str], label_space: LabelSpace, tmp_path: Path
) -> None:
    """As it would if it had been there in training, and had taught nothing."""
    settings, space = config(backbones["resnet"]), added_space(label_space, "cup")
    save_trained(settings, label_space, tmp_path / "before")
    save_trained(settings, space, tmp_path / "all")
    start = extend_classifier(settings, tmp_path / "before", space, CPU).text()
    torch.testing.assert_close(start, load_classifier(tmp_path / "all").text_features[:, 5:])


@torch.no_grad()
def test_raw_clip_grows_by_raw_clip(backbones: dict[str, str], label_space: LabelSpace, tmp_path: Path) -> None:
    settings, space = config(backbones["vit"]), added_space(label_space, "cup")
    build(settings, label_space).raw_clip().save(tmp_path / "before")
    extend_classifier(settings, tmp_path / "before", space, CPU).grown().save(tmp_path / "grown")
    expected = build(settings, space).raw_clip()
    images = torch.rand(4, 3, 40, 40)
    assert torch.equal(ranks(load_classifier(tmp_path / "grown")(images)), ranks(expected(images)))


def ranks(scores: Tensor) -> Tensor:
    return scores.argsort(1)


@torch.no_grad()
def test_a_cache_of_generated_images_scores_the_labels_that_it_was_filled_for(
    backbones: dict[str, str], label_space: LabelSpace, tmp_path: Path
) -> None:
    settings, space = config(backbones["resnet"], cache={}), added_space(label_space, "cup")
    classifier = build(settings, label_space)
    images = image_set(label_space, 12, "synthetic")
    _, features = classifier.without_cache(images.images.float() / 255)
    classifier.cache.fill(features, images.targets)
    classifier.cache.use({"cache_alpha": 4.0, "cache_beta": 2.0})
    classifier.train().eval()
    classifier.save(tmp_path / "before")
    base, grown = load_classifier(tmp_path / "before"), grow(settings, tmp_path / "before", space, tmp_path / "grown")
    photos = torch.rand(4, 3, 40, 40)
    assert not torch.equal(base(photos), base.without_cache(photos)[0].sigmoid())
    assert torch.equal(grown(photos)[:, :5], base(photos))
