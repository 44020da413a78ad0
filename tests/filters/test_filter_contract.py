"""The contract of every filter, whatever its rule."""

import pytest
import torch

from tailorset.filters import Filter
from tailorset.plugins import load_plugin, plugin_names
from tailorset.records import Label, LabelSpace

UNSEEN = ("cup", "fish", "key", "boat")
SPACE = LabelSpace(
    name="test", labels=(Label(name="hat", seen=True), *(Label(name=name, seen=False) for name in UNSEEN))
)


@pytest.fixture(params=plugin_names("filters"))
def rule(request: pytest.FixtureRequest) -> Filter:
    plugin = load_plugin("filters", request.param)
    return plugin.build(plugin.Config(), SPACE)


def test_a_clear_image_is_kept_with_its_labels(rule: Filter) -> None:
    (decision,) = rule.decide(torch.tensor([[20.0, 19.0, 0.0, 0.0]]), [("cup", "fish")])
    assert decision.kept
    assert set(decision.labels) >= {"cup", "fish"}
    assert decision.reason == "kept"
    assert 0.99 < decision.confidence <= 1


def test_order_and_batch_do_not_matter(rule: Filter) -> None:
    logits = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) * 5
    requested = [UNSEEN[k % 4 : k % 4 + 1 + k % 2] for k in range(40)]
    together = rule.decide(logits, requested)
    alone = [rule.decide(logits[k : k + 1], requested[k : k + 1])[0] for k in range(40)]
    backwards = rule.decide(logits.flip(0), requested[::-1])[::-1]
    for others in (alone, backwards):
        assert [decision[:3] for decision in others] == [decision[:3] for decision in together]
        assert [decision.confidence for decision in others] == pytest.approx(
            [decision.confidence for decision in together]
        )


def test_rejected_images_have_no_label_but_a_reason(rule: Filter) -> None:
    logits = torch.randn(200, 4, generator=torch.Generator().manual_seed(1)) * 5
    for decision in rule.decide(logits, [("key",)] * 200):
        assert 0 <= decision.confidence <= 1
        assert decision.kept == (decision.reason == "kept") == bool(decision.labels)
        assert decision.kept or "key" in decision.reason


def test_no_image_gives_no_decision(rule: Filter) -> None:
    assert rule.decide(torch.zeros(0, 4), []) == []


@pytest.mark.parametrize("name", plugin_names("filters"))
def test_a_label_s_ancestors_do_not_compete_with_it_and_are_shown_with_it(name: str) -> None:
    labels = [("hat", True, ()), ("animal", False, ("hat",)), ("bear", False, ("animal",)), ("cup", False, ())]
    space = LabelSpace(name="zoo", labels=tuple(Label(name=n, seen=s, parents=p) for n, s, p in labels))
    plugin = load_plugin("filters", name)
    logits = torch.tensor([[27.0, 26.0, 0.0]]).double()
    (decision,) = plugin.build(plugin.Config(), space).decide(logits, [("bear",)])
    assert logits.tolist() == [[27.0, 26.0, 0.0]]  # the caller's stay as they are
    assert decision.kept
    assert set(decision.labels) == {"bear", "animal"}  # hat is seen: generated images say nothing of it


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_stop(rule: Filter, value: float) -> None:
    with pytest.raises(ValueError, match="1 logits are not finite"):
        rule.decide(torch.tensor([[0.0, value, 0.0, 0.0]]), [("cup",)])


@pytest.mark.parametrize("labels", [("hat",), ("dog",), ()])
def test_only_unseen_labels_can_be_requested(rule: Filter, labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"requested labels .*cup.*fish.*key.*boat"):
        rule.decide(torch.zeros(1, 4), [labels])


def test_scores_of_other_labels_are_refused(rule: Filter) -> None:
    with pytest.raises(ValueError, match=r"\(1, 5\).*\(1, 4\)"):
        rule.decide(torch.zeros(1, 5), [("cup",)])
