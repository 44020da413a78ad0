"""The request to the language model, and the template that needs no model."""

from __future__ import annotations

import numpy as np
import pytest

from tailorset.llms.parts.few_shot import plain_text
from tailorset.prompts.contract import Contract
from tailorset.prompts.wording import dialogue, keywords_of, scene_of, template_phrase
from tailorset.records import LabelSpace


def test_a_pair_is_asked_for_as_published() -> None:
    [message] = dialogue(("cup", "computer keyboard"), min_words=12)
    assert message["role"] == "user"
    for part in ("painter", "at least 12 words", "both keywords", '"next to"', "cup; computer keyboard"):
        assert part in message["content"]


def test_the_next_to_clause_is_dropped_for_one_keyword() -> None:
    [message] = dialogue(("cup",), min_words=10)
    assert "next to" not in message["content"]
    assert "cup" in message["content"]


@pytest.mark.parametrize("keywords", [("cup",), ("cup", "fire hydrant"), ("ball", "toy-car 2")])
def test_keywords_can_be_read_back(keywords: tuple[str, ...]) -> None:
    assert keywords_of(dialogue(keywords, 10)) == keywords


@pytest.mark.parametrize("keywords", [("cup",), ("cup", "fire hydrant")])
def test_a_scene_is_part_of_the_request_and_can_be_read_back(keywords: tuple[str, ...]) -> None:
    messages = dialogue(keywords, 10, "a table in a kitchen")
    assert "in the surroundings of the scene below. Answer" in messages[0]["content"]
    assert (keywords_of(messages), scene_of(messages)) == (keywords, "a table in a kitchen")
    assert "Scene: a table in a kitchen" in plain_text(messages)
    assert scene_of(dialogue(keywords, 10)) == ""


@pytest.mark.parametrize(("scene", "end"), [("in the snow", "in the snow"), ("a red sofa", "in front of a red sofa")])
def test_a_template_ends_in_the_scene(scene: str, end: str) -> None:
    assert template_phrase(["cup"], 5, np.random.default_rng(0), scene).endswith(f" cup {end}")


@pytest.mark.parametrize("keywords", [(), ("a", "b", "c")])
def test_one_or_two_keywords(keywords: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one or two"):
        dialogue(keywords, 10)


@pytest.mark.parametrize("keywords", [("cup",), ("cup", "clock")])
@pytest.mark.parametrize("min_words", [1, 10, 25])
def test_templates_keep_the_contract(keywords: tuple[str, ...], min_words: int) -> None:
    rng = np.random.default_rng(0)
    phrases = [template_phrase(keywords, min_words, rng) for _ in range(200)]
    space = LabelSpace.model_validate({"name": "two", "labels": [{"name": name, "seen": False} for name in keywords]})
    assert not any(Contract(space, min_words).rejection(phrase, keywords) for phrase in phrases)
    assert len(set(phrases)) > 150
