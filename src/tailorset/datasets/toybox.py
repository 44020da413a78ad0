"""The drawn data set of the embedded world: photos of toys, cluttered, blurred and noisy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field

from tailorset.datasets import DatasetConfig
from tailorset.images.codec import encode_png
from tailorset.records import Example, LabelSpace, RealSample, Split
from tailorset.seeding import numpy_rng
from tailorset.toybox.captions import caption
from tailorset.toybox.objects import DRAWINGS
from tailorset.toybox.scenes import Scene, photo_scene, render, web_scene


class Config(DatasetConfig):
    """Number of images per split and their side length; photos become legible from about 48 px on.

    annotate_unseen: train photos show and annotate unseen labels too. The ladder measures full supervision with it, to
    which everything else is compared; in practice nobody has such annotations.
    """

    num_train: int = Field(default=4000, ge=1)
    num_val: int = Field(default=1000, ge=1)
    num_test: int = Field(default=2000, ge=1)
    image_px: int = Field(default=64, ge=16, le=1024)
    annotate_unseen: bool = False

    @property
    def annotates_unseen(self) -> bool:
        return self.annotate_unseen


class Toybox:
    """Every image is drawn from its own seed, (base seed, split, number): no image depends on another."""

    def __init__(self, config: Config, label_space: LabelSpace, seed: int) -> None:
        self.image_px = config.image_px
        self.seed = seed
        self.names = label_space.names
        self.in_train = label_space.names if config.annotate_unseen else label_space.seen
        self.sizes: Mapping[Split, int] = {
            "train": config.num_train,
            "val": config.num_val,
            "test": config.num_test,
        }

    notes = ()

    def samples(self, split: Split, start: int = 0) -> Iterator[RealSample]:
        """Draw the samples of a split; in train, unseen labels are usually neither drawn nor annotated."""
        labels = self._labels(split)
        for number in range(start, self.sizes[split]):
            scene = self._photo(split, number)
            shown = {item.label for item in scene.items}
            png = encode_png(render(scene, self.image_px))
            yield RealSample(f"{split}-{number:06d}", png, {name: int(name in shown) for name in labels})

    def sheets(self, num_examples: int) -> Mapping[str, list[Example]]:
        """The target domain next to the style that the foundation models learned from."""
        numbers = range(num_examples)
        test = [self._photo("test", number % self.sizes["test"]) for number in numbers]
        return {
            "photo_style": [self._example(scene, ", ".join(item.label for item in scene.items)) for scene in test],
            "web_style": [self._web_example(number) for number in numbers],
        }

    def _photo(self, split: Split, number: int) -> Scene:
        return photo_scene(numpy_rng(self.seed, "toybox", split, number), self._labels(split))

    def _labels(self, split: Split) -> tuple[str, ...]:
        return self.in_train if split == "train" else self.names

    def _web_example(self, number: int) -> Example:
        rng = numpy_rng(self.seed, "toybox", "web", number)
        scene = web_scene(rng, self.names)
        return self._example(scene, caption(scene, rng))

    def _example(self, scene: Scene, text: str) -> Example:
        return Example(render(scene, self.image_px), text)


def build(config: Config, label_space: LabelSpace, seed: int) -> Toybox:
    """The data set for a label space whose labels can all be drawn.

    Raises:
        ValueError: a label has no drawing, or too few labels are seen to fill a photo.
    """
    if unknown := sorted(set(label_space.names) - set(DRAWINGS)):
        raise ValueError(f"toybox cannot draw {unknown}: use labels out of {sorted(DRAWINGS)} or another data set")
    if not label_space.seen:
        raise ValueError("toybox needs a seen label: train photos show nothing else")
    return Toybox(config, label_space, seed)
