"""Captions of web scenes, and the phrases a painter language model would write for labels.

Both are built from the same word banks, so that a text encoder trained on captions has seen every word
of a painter's phrase. A bank entry in a template is written {like this}.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from tailorset.seeding import pick
from tailorset.toybox.backgrounds import BACKGROUNDS, TEXTURES
from tailorset.toybox.objects import DRAWINGS
from tailorset.toybox.parts import COLOURS
from tailorset.toybox.scenes import Item, Scene, contrasting_colours

SHARE_INCOMPLETE = 0.35  # of the captions of scenes with more than one object
SHARE_KINDLESS = 0.15  # of captions that do not say whether they describe a drawing or a snapshot
_FEW_WORDS = 0.4

ADJECTIVES = (
    "shiny",
    "little",
    "bright",
    "cute",
    "simple",
    "pretty",
    "plain",
    "new",
    "lovely",
    "nice",
    "smooth",
    "clean",
    "neat",
    "cheerful",
    "painted",
    "fresh",
    "good",
    "funny",
    "fine",
    "great",
)
KINDS: dict[str, tuple[str, ...]] = {  # words for the picture in captions of each style; "photo" twice as often
    "drawing": ("drawing", "illustration", "painting", "cartoon"),
    "snapshot": ("photo", "photo", "photograph", "snapshot", "close view"),
}
OPENINGS = ("", "", "", "there is", "this is", "a picture of", "an image of")  # of captions without a kind
MEDIUMS = (
    "photo",
    "picture",
    "drawing",
    "image",
    "illustration",
    "painting",
    "close view",
    "cartoon",
)
PLACES: dict[str, tuple[str, ...]] = {
    "sky": ("in the sky", "in the blue sky", "in the clear sky", "high in the air"),
    "grass": ("on the grass", "on the soft green grass", "in a green field", "in the garden"),
    "sand": ("on the sand", "on the warm sand", "on a sandy beach", "in the desert"),
    "snow": ("in the snow", "on the white snow", "on fresh snow", "on a snowy winter day"),
    "night": ("at night", "in the dark night", "under the dark night sky", "in the dark"),
    "sea": ("by the sea", "in front of the blue sea", "on the water", "at the sea"),
    "wall": ("against a pink wall", "in front of a pink wall", "in a pink room", "on a pink wall"),
    "table": ("on a table", "on a brown wooden table", "on the kitchen table", "on a wooden desk"),
    "stripes": ("on a striped cloth", "on a striped rug"),
    "checks": ("on a checked cloth", "on the tiles", "on a tiled floor"),
    "wood": ("on a wooden floor", "on the boards", "on old wood"),
    "speckle": ("on the ground", "on the stones", "on rough ground"),
    "clouds": ("on the floor", "on a carpet", "on a soft rug"),
}
LIGHTS: dict[str, tuple[str, ...]] = {
    "sky": ("on a sunny day", "in bright sunlight", "on a calm summer day"),
    "grass": ("under a clear sky", "on a sunny day", "on a fine spring morning"),
    "sand": ("in bright sunlight", "on a hot summer day", "under the warm sun"),
    "snow": ("in cold light", "on a cold morning", "in pale winter light"),
    "night": ("in soft moonlight", "on a quiet evening", "with deep shadows"),
    "sea": ("on a calm day", "under a pale sky", "on a fine summer morning"),
    "wall": ("in soft light", "in a quiet room", "with soft even light"),
    "table": ("in warm light", "in a cosy kitchen", "in soft morning light"),
    **dict.fromkeys(TEXTURES, ("in soft light", "in warm light", "in the evening", "on a quiet morning")),
}
RELATIONS: dict[str, tuple[str, ...]] = {
    "next to": ("next to", "next to", "next to", "beside", "near"),
    "above": ("above", "above", "over"),
    "below": ("below", "below", "under"),
    "": ("",),
}
_REVERSED = {"next to": "next to", "above": "below"}
_SHORT = ("{a}", "{a}", "{a} {place}", "one {name}")
_ALONE = ("{a} {place}", "{a} {place} {light}")
_LONELY = (*_ALONE, "{a} standing alone {place}")  # of scenes that hold nothing else
_PAIR_SHORT = ("{a} and {b}", "{a} and {b}", "{a} {relation} {b}", "{a} with {b}")
_PAIR = (
    "{a} {relation} {b} {place}",
    "{a} {relation} {b} {place} {light}",
    "{a} {relation} {b} {light}",
    "{a} and {b} {place}",
)
_TRIO = (
    "{a} and {b} and {c}",
    "{a}, {b} and {c}",
    "{a} with {b} and {c} {place}",
    "{a}, {b} and {c} {place} {light}",
    "{a} {relation} {b} and {c} {place}",
)
_PAINTER_PAIR = (
    "{a} next to {b} {place} {light}",
    "a {medium} of {a} next to {b} {place} {light}",
    "a {medium} showing {a} next to {b} {place} {light}",
    "there is {a} next to {b} {place} {light}",
)
_PAINTER_SINGLE = (
    "a {medium} of {a} {place} {light}",
    "a {medium} showing {a} {place} {light}",
    "there is {a} standing alone {place} {light}",
    "{a} standing alone {place} {light}",
)
MIN_PAINTER_WORDS = 10


def caption(
    scene: Scene,
    rng: np.random.Generator,
    names: Mapping[str, Sequence[str]] | None = None,
    *,
    incomplete: float = SHARE_INCOMPLETE,
    kindless: float = SHARE_KINDLESS,
) -> str:
    """A lower-case caption of a web scene; everything it names is drawn, but it may be incomplete.

    It begins with the kind of picture, as in "a photo of", but for a share `kindless`.

    names: the wordings of each label (default: the label itself).
    incomplete: the share, among scenes with more than one object, of captions that leave one or more out;
        0 = every caption names all objects.
    """
    if scene.style == "photo":
        raise ValueError("a photo scene has no caption: caption scenes made by web_scene")
    items = list(scene.items)
    if len(items) > 1 and rng.random() < incomplete:
        items = _some_of(items, rng)
    relation: str = scene.relation
    if len(items) == 2 and rng.random() < 0.5:
        items, relation = items[::-1], _REVERSED[relation]
    template = f"{_opening(scene.style, kindless, rng)} {pick(rng, _templates(scene, len(items), rng))}".strip()
    coloured = rng.random() < 0.8
    things = [_thing(item, rng, names, coloured) for item in items]
    words = {
        "relation": pick(rng, RELATIONS[relation]),
        "name": things[0].split()[-1],
    }
    return _write(template, things, scene.background, words, rng)


def painter_phrase(labels: Sequence[str], rng: np.random.Generator) -> str:
    """Return the answer of an obedient painter to one keyword or two: a phrase of at least 10 words.

    Two labels are joined by "next to", in the given order; all words are in `vocabulary()`.
    """
    if len(labels) not in (1, 2):
        raise ValueError(f"{len(labels)} labels {list(labels)}: a painter is given one or two")
    background = pick(rng, list(BACKGROUNDS))
    colours = contrasting_colours(background)
    templates = _PAINTER_PAIR if len(labels) == 2 else _PAINTER_SINGLE
    while True:
        things = [_painted(label, pick(rng, colours), rng) for label in labels]
        phrase = _write(pick(rng, templates), things, background, {}, rng)
        if len(phrase.split()) >= MIN_PAINTER_WORDS:
            return phrase


def vocabulary(names: Mapping[str, Sequence[str]] | None = None) -> frozenset[str]:
    """Every word that captions and painter phrases are made of."""
    wordings = [w for label in DRAWINGS for w in (names or {}).get(label, (label,))]
    banks = (
        wordings,
        DRAWINGS,
        COLOURS,
        ADJECTIVES,
        MEDIUMS,
        OPENINGS,
        *KINDS.values(),
        *PLACES.values(),
        *LIGHTS.values(),
        *RELATIONS.values(),
        _SHORT,
        _LONELY,
        _PAIR_SHORT,
        _PAIR,
        _TRIO,
        _PAINTER_PAIR,
        _PAINTER_SINGLE,
        ("an", "of", "showing", "small", "big"),
    )
    text = " ".join(entry for bank in banks for entry in bank)
    return frozenset(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", text)))


def _opening(style: str, kindless: float, rng: np.random.Generator) -> str:
    if rng.random() < kindless:
        return pick(rng, OPENINGS)
    return f"a {pick(rng, KINDS[style])} {'showing' if rng.random() < 0.15 else 'of'}"


def _templates(scene: Scene, num_named: int, rng: np.random.Generator) -> tuple[str, ...]:
    short = rng.random() < _FEW_WORDS
    if num_named == 1:
        return _SHORT if short else _LONELY if len(scene.items) == 1 else _ALONE
    if num_named == 2:
        return _PAIR_SHORT if short else _PAIR
    return _TRIO


def _some_of(items: list[Item], rng: np.random.Generator) -> list[Item]:
    """At least one item, but not all, and of three only pairs that the relation applies to."""
    if len(items) == 3 and rng.random() < 0.5:
        return items[:2]
    return [items[int(rng.integers(len(items)))]]


def _thing(
    item: Item,
    rng: np.random.Generator,
    names: Mapping[str, Sequence[str]] | None,
    coloured: bool,
) -> str:
    """The item in words, such as "a small red toy ball"."""
    words = [item.colour] if coloured else []
    if rng.random() < 0.25:
        words.insert(0, pick(rng, ADJECTIVES))
    elif rng.random() < 0.2:
        words.insert(0, "big" if item.size > 0.6 else "small")
    return " ".join(["a", *words, pick(rng, (names or {}).get(item.label, (item.label,)))])


def _painted(label: str, colour: str, rng: np.random.Generator) -> str:
    size_or_look = pick(rng, ("small", "big", *ADJECTIVES, *ADJECTIVES))
    return f"a {size_or_look} {colour} {label}"


def _write(
    template: str,
    things: Sequence[str],
    background: str,
    words: Mapping[str, str],
    rng: np.random.Generator,
) -> str:
    """The template with its bank entries filled in, and "a" or "an" as the next word requires."""
    text = template.format(
        **dict(zip("abc", things, strict=False)),
        medium=pick(rng, MEDIUMS),
        place=pick(rng, PLACES[background]),
        light=pick(rng, LIGHTS[background]),
        **words,
    )
    return re.sub(r"\ba(?= [aeiou])", "an", text)
