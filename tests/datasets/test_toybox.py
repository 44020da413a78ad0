"""The drawn data set keeps its rules: no unseen object in train, no image in two splits, each of its own seed."""

from pathlib import Path

import pytest

import tailorset.datasets.toybox as plugin
from tailorset.datasets.toybox import Config, Toybox, build
from tailorset.records import Label, LabelSpace
from tailorset.toybox.scenes import Scene

ROOT = Path(__file__).resolve().parents[2]
SPACE = LabelSpace.load(ROOT / "data" / "labels" / "toybox.yaml")
SMALL = Config(num_train=30, num_val=20, num_test=30, image_px=32)


def toybox(seed: int = 0, config: Config = SMALL) -> Toybox:
    return build(config, SPACE, seed)


def test_sizes_are_the_configured_ones() -> None:
    dataset = toybox()
    for split, size in (("train", 30), ("val", 20), ("test", 30)):
        assert dataset.sizes[split] == len(list(dataset.samples(split))) == size


def test_no_unseen_object_is_drawn_in_train(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Scene] = []
    render = plugin.render
    monkeypatch.setattr(plugin, "render", lambda scene, px: drawn.append(scene) or render(scene, px))
    samples = list(toybox().samples("train"))
    assert len(drawn) == len(samples)
    for scene, sample in zip(drawn, samples, strict=True):
        shown = {item.label for item in scene.items}
        assert shown <= set(SPACE.seen)
        assert shown == {name for name, target in sample.targets.items() if target}


def test_test_images_show_unseen_objects_with_the_whole_truth() -> None:
    samples = list(toybox().samples("test"))
    assert all(set(sample.targets) == set(SPACE.names) for sample in samples)
    assert {name for sample in samples for name in SPACE.unseen if sample.targets[name]} == set(SPACE.unseen)


def test_splits_share_neither_ids_nor_images() -> None:
    dataset = toybox()
    samples = [sample for split in dataset.sizes for sample in dataset.samples(split)]
    assert len({sample.image_id for sample in samples}) == len({sample.png for sample in samples}) == len(samples)


def test_an_image_does_not_depend_on_those_before_it() -> None:
    forwards = list(toybox().samples("val"))
    backwards = [next(toybox().samples("val", start)) for start in reversed(range(20))]
    assert forwards == backwards[::-1]


def test_a_larger_split_begins_with_the_smaller_one() -> None:
    larger = SMALL.model_copy(update={"num_test": 31})
    assert list(toybox(config=larger).samples("test"))[:30] == list(toybox().samples("test"))


def test_the_seed_changes_every_image() -> None:
    first, second = ({sample.png for sample in toybox(seed).samples("val")} for seed in (0, 1))
    assert not first & second


def test_labels_that_cannot_be_drawn_are_named() -> None:
    space = LabelSpace(name="x", labels=(Label(name="cup", seen=True), Label(name="zebra", seen=False)))
    with pytest.raises(ValueError, match=r"cannot draw \['zebra'\]: use labels out of \['ball'"):
        build(SMALL, space, 0)


def test_a_seen_label_is_needed() -> None:
    with pytest.raises(ValueError, match="needs a seen label"):
        build(SMALL, LabelSpace(name="x", labels=(Label(name="cup", seen=False),)), 0)


@pytest.mark.parametrize("wrong", [{"num_train": 0}, {"image_px": 4}, {"num_trian": 5}])
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)
