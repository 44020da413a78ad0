"""The rule published for NUS-WIDE: the best k, clear extras, and their parents."""

import pytest
import torch

from tailorset.filters.top_k import Config, build
from tailorset.records import Label, LabelSpace

SPACE = LabelSpace(
    name="test",
    labels=(
        Label(name="thing", seen=True),
        Label(name="cup", seen=False),
        Label(name="fish", seen=False, parents=("animal",)),
        Label(name="key", seen=False, parents=("thing",)),
        Label(name="animal", seen=False, parents=("living",)),
        Label(name="living", seen=False),
    ),
)  # unseen: cup, fish, key, animal, living


def decide(logits: list[float], *labels: str, k: int = 2, extra_threshold: float = 0.1):
    rule = build(Config(k=k, extra_threshold=extra_threshold), SPACE)
    return rule.decide(torch.tensor([logits]), [labels])[0]


def test_published_values_are_the_defaults() -> None:
    assert (Config().k, Config().extra_threshold) == (7, 0.1)


def test_requested_labels_among_the_best_are_kept() -> None:
    assert decide([5.0, 8.0, 0.0, 0.0, 0.0], "cup", extra_threshold=0.99).labels == ("cup",)
    rejected = decide([5.0, 0.0, 9.0, 6.0, 0.0], "cup")
    assert (rejected.kept, rejected.labels, rejected.reason) == (False, (), "cup not among the 2 best")


def test_every_requested_label_has_to_be_there() -> None:
    assert decide([9.0, 0.0, 8.0, 0.0, 0.0], "cup", "key").kept
    assert decide([9.0, 0.0, 8.0, 8.5, 0.0], "cup", "key").reason == "key not among the 2 best"


def test_clear_extras_become_labels() -> None:
    assert decide([9.0, 0.0, 8.0, 0.0, 0.0], "cup").labels == ("cup", "key")
    assert decide([9.0, 0.0, 6.0, 0.0, 0.0], "cup").labels == ("cup",)  # softmax 0.047
    assert decide([9.0, 0.0, 6.0, 0.0, 0.0], "cup", extra_threshold=0.04).labels == ("cup", "key")


def test_unseen_ancestors_follow_and_seen_ones_do_not() -> None:
    assert decide([0.0, 9.0, 0.0, 0.0, 0.0], "fish").labels == ("fish", "animal", "living")
    assert decide([0.0, 0.0, 9.0, 0.0, 0.0], "key").labels == ("key",)


def test_k_above_the_number_of_labels_keeps_everything() -> None:
    assert decide([-9.0, 9.0, 9.0, 9.0, 9.0], "cup", k=7).kept


def test_k_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="k"):
        Config(k=0)
