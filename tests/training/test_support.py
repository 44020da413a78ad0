"""Choice of the generated images that a classifier keeps: each once, labels in turn, in any order of the set."""

from __future__ import annotations

import torch

from tailorset.storage.image_set import ImageSet, Mixture
from tailorset.training.support import support_images


def generated(shown: list[int]) -> ImageSet:
    """One image of the named label each; three labels."""
    targets = torch.zeros(len(shown), 3, dtype=torch.int8)
    targets[range(len(shown)), shown] = 1
    images = torch.zeros(len(shown), 3, 4, 4, dtype=torch.uint8)
    return ImageSet(tuple(f"prompt{index}-0000" for index in range(len(shown))), images, targets, "synthetic")


def test_photos_and_repeated_images_are_left_out(real: ImageSet, synthetic: ImageSet) -> None:
    data = Mixture([(real, 1), (synthetic, 3)])
    chosen = support_images(data, 1000)
    assert [data.ids[index] for index in chosen] == list(synthetic.ids)


def test_rare_labels_are_kept_first_and_the_rest_shares_the_room() -> None:
    images = generated([0] * 50 + [1] * 2 + [2] * 50)
    chosen = support_images(images, 20)
    assert len(chosen) == 20
    assert (images.targets[chosen] == 1).sum(0).tolist() == [9, 2, 9]


def test_the_same_images_are_chosen_in_any_order() -> None:
    images = generated([0, 1, 2] * 10)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
    ids = tuple(images.ids[index] for index in order)
    mixed = ImageSet(ids, images.images, images.targets[order], "synthetic")
    assert {mixed.ids[i] for i in support_images(mixed, 9)} == {images.ids[i] for i in support_images(images, 9)}
