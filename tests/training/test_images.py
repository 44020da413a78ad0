"""The images that choose the epoch: photos of val if they show what is to be chosen for."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from tailorset.records import LabelSpace
from tailorset.storage.image_set import ImageSet
from tailorset.training.images import selection_set


def test_val_chooses_only_where_it_shows_a_label_to_choose_for(
    val: ImageSet, synthetic: ImageSet, label_space: LabelSpace, caplog: pytest.LogCaptureFixture
) -> None:
    assert chosen(val, (), synthetic, label_space) is val
    assert chosen(val, label_space.unseen, synthetic, label_space) is synthetic
    assert "no val photo shows an unseen label: the epoch is chosen on generated images" in caplog.text
    assert chosen(val, label_space.unseen, synthetic, label_space, ["ball"]) is val
    assert chosen(val, ["ball"], synthetic, label_space, ["ball"]) is synthetic


def chosen(
    val: ImageSet, hidden: Sequence[str], synthetic: ImageSet, label_space: LabelSpace, labels: Sequence[str] = ()
) -> ImageSet:
    """Return the choice if no val photo shows the hidden labels."""
    targets = val.targets.clone()
    targets[:, label_space.columns(hidden)] = 0
    photos = SimpleNamespace(targets=targets, load=lambda image_px: val)
    generated = SimpleNamespace(split=lambda share: (None, SimpleNamespace(load=lambda image_px: synthetic)))
    collection = SimpleNamespace(label_space=label_space, photos=lambda split: photos, generated=lambda: generated)
    return selection_set(collection, 32, 0.1, labels)  # type: ignore[arg-type]
