"""Captions are true and use few words; a painter's phrase uses the same words."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from tailorset.prompts.wording import of_kind
from tailorset.toybox.captions import KINDS, caption, painter_phrase, vocabulary
from tailorset.toybox.objects import DRAWINGS
from tailorset.toybox.parts import COLOURS
from tailorset.toybox.scenes import Scene, photo_scene, web_scene

LABELS = list(DRAWINGS)
NAMES = {"ball": ["ball", "toy ball"], "cup": ["mug"]}
PLACE_ALSO_SAYS = {("blue", "sky"), ("blue", "sea"), ("green", "grass"), ("green", "field"), ("white", "snow")}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def captioned(rng: np.random.Generator) -> list[tuple[Scene, str]]:
    scenes = [web_scene(rng, LABELS) for _ in range(3000)]
    return [(scene, caption(scene, rng)) for scene in scenes]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text)


def test_named_objects_and_colours_are_drawn(captioned):
    for scene, text in captioned:
        drawn = {(item.colour, item.label) for item in scene.items}
        words = _words(text)
        named = {word for word in words if word in DRAWINGS}
        assert named
        assert named <= {item.label for item in scene.items}
        pairs = itertools.pairwise(words)
        assert {(word, after) for word, after in pairs if word in COLOURS} <= drawn | PLACE_ALSO_SAYS


def test_named_relation_is_drawn(captioned):
    lower = "below|under"
    for scene, text in captioned:
        things = "|".join(item.label for item in scene.items)
        stated = re.search(rf"\b({things}) (?:is )?(above|over|{lower}) an? [a-z ]*?\b({things})\b", text)
        if stated is None:
            continue
        upper, under = stated[1], stated[3]
        if re.fullmatch(lower, stated[2]):
            upper, under = under, upper
        height = {item.label: item.y for item in scene.items}
        assert scene.relation == "above"
        assert height[upper] < height[under]


def test_share_of_incomplete_captions(captioned):
    several = [(scene, set(_words(text))) for scene, text in captioned if len(scene.items) > 1]
    incomplete = [any(item.label not in words for item in scene.items) for scene, words in several]
    assert 0.25 <= np.mean(incomplete) <= 0.45


@pytest.mark.parametrize(("incomplete", "low", "high"), [(0, 0, 0), (0.5, 0.4, 0.6), (1, 1, 1)])
def test_the_share_of_incomplete_captions_is_chosen(incomplete, low, high, rng):
    scenes = [web_scene(rng, LABELS, num_objects=2) for _ in range(300)]
    texts = [caption(scene, rng, incomplete=incomplete) for scene in scenes]
    left_out = [
        any(item.label not in _words(text) for item in scene.items) for scene, text in zip(scenes, texts, strict=True)
    ]
    assert low <= np.mean(left_out) <= high


def test_kind_of_picture_is_named_as_drawn_and_sometimes_left_out(captioned):
    named = {style: set(" ".join(words).split()) - {"view"} for style, words in KINDS.items()}
    for scene, text in captioned:
        other = {"drawing": "snapshot", "snapshot": "drawing"}[scene.style]
        assert not named[other] & set(_words(text)[:3])
    kindless = [not named[scene.style] & set(_words(text)[:3]) for scene, text in captioned]
    assert np.mean(kindless) == pytest.approx(0.15, abs=0.03)


@pytest.mark.parametrize("style", ["drawing", "snapshot"])
def test_the_share_without_a_kind_is_chosen(style, rng):
    scenes = [web_scene(rng, LABELS, style=style) for _ in range(300)]
    kinds = "|".join(KINDS[style])
    opening = re.compile(rf"an? ({kinds}) (of|showing) ")
    assert all(opening.match(caption(scene, rng, kindless=0)) for scene in scenes)
    assert not any(opening.match(caption(scene, rng, kindless=1)) for scene in scenes)


def test_nothing_stands_alone_beside_something_else(captioned):
    assert {len(scene.items) for scene, text in captioned if "alone" in text} == {1}


def test_captions_are_varied_lower_case_and_bounded(captioned):
    texts = [text for _, text in captioned]
    assert all(text == text.lower() for text in texts)
    assert len(vocabulary()) <= 350
    assert {word for text in texts for word in _words(text)} <= vocabulary()
    assert len(set(texts)) > 0.8 * len(texts)
    assert min(len(text.split()) for text in texts) <= 2
    assert max(len(text.split()) for text in texts) >= 15


def test_captions_use_the_given_names(rng):
    scenes = [web_scene(rng, ["ball", "cup"], num_objects=2) for _ in range(200)]
    texts = [caption(scene, rng, NAMES) for scene in scenes]
    assert any("toy ball" in text for text in texts)
    assert any("mug" in text for text in texts)
    assert not any("cup" in text for text in texts)
    assert {word for text in texts for word in _words(text)} <= vocabulary(NAMES)


def test_articles_fit_the_next_word(captioned):
    text = " . ".join(text for _, text in captioned)
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text)


@pytest.mark.parametrize("labels", [["umbrella", "clock"], ["key", "spoon"], ["fish"]])
def test_painter_phrase_contract(labels, rng):
    phrases = {painter_phrase(labels, rng) for _ in range(2500)}
    assert len(phrases) > 2000
    joined = r" next to an? [a-z ]*\b".join(labels)
    for phrase in phrases:
        assert len(phrase.split()) >= 10
        assert re.search(rf"\b{joined}\b", phrase)
        assert set(_words(phrase)) <= vocabulary()
        assert {word for word in _words(phrase) if word in DRAWINGS} == set(labels)


def test_prompts_fit_the_text_encoder(rng):
    """Words, start and end; the longest that the painter can write, with the kind of picture in front."""
    settings = yaml.safe_load(Path("pipeline/foundation/params.yaml").read_text())
    labels = ["toy ball", "toy car"]
    longest = max(len(of_kind("a close view of", painter_phrase(labels, rng)).split()) for _ in range(3000))
    assert 22 < longest + 2 <= settings["train_tokenizer"]["max_length"]


def test_painter_refuses_other_numbers_of_labels(rng):
    with pytest.raises(ValueError, match="one or two"):
        painter_phrase(["ball", "car", "hat"], rng)


def test_photos_have_no_caption(rng):
    with pytest.raises(ValueError, match="made by web_scene"):
        caption(photo_scene(rng, LABELS), rng)
