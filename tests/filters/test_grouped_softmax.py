"""The rule published for MS-COCO, against hand computation."""

import math

import pytest
import torch

from tailorset.filters.grouped_softmax import Config, build
from tailorset.records import Label, LabelSpace

UNSEEN = ("cup", "fish", "key", "boat")
SPACE = LabelSpace(name="test", labels=tuple(Label(name=name, seen=False) for name in UNSEEN))


def test_confidence_is_the_weakest_requested_label_against_the_others() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    (decision,) = build(Config(), SPACE).decide(logits, [("cup", "fish")])
    others = math.exp(0) + math.exp(-1)
    assert decision.confidence == pytest.approx(math.exp(1) / (math.exp(1) + others))
    assert decision.kept
    assert decision.labels == ("cup", "fish")


def test_requested_labels_do_not_compete() -> None:
    (decision,) = build(Config(threshold=0.99), SPACE).decide(torch.tensor([[30.0, 10.0, 0.0, 0.0]]), [("cup", "fish")])
    assert decision.kept


@pytest.mark.parametrize(("threshold", "kept"), [(0.3, True), (0.5, True), (0.65, False), (0.9, False)])
def test_threshold_decides(threshold: float, kept: bool) -> None:
    (decision,) = build(Config(threshold=threshold), SPACE).decide(torch.tensor([[2.0, 1.0, 0.0, -1.0]]), [("cup",)])
    assert decision.confidence == pytest.approx(0.643914, abs=1e-6)
    assert decision.kept is kept
    assert decision.reason == ("kept" if kept else "cup below threshold")


def test_a_probability_at_the_threshold_does_not_exceed_it() -> None:
    two = LabelSpace(name="test", labels=SPACE.labels[:2])
    (decision,) = build(Config(threshold=0.5), two).decide(torch.zeros(1, 2), [("cup",)])
    assert decision.confidence == 0.5
    assert not decision.kept


def test_the_weakest_label_is_named() -> None:
    (decision,) = build(Config(), SPACE).decide(torch.tensor([[9.0, 1.0, 5.0, 0.0]]), [("cup", "fish")])
    assert decision.reason == "fish below threshold"


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        Config(threshold=threshold)
