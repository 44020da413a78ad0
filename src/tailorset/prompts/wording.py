"""The painter: the request for a picture of some keywords, and a template that needs no language model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tailorset.seeding import pick

Dialogue = list[dict[str, str]]  # [{"role": "user" | "assistant" | "system", "content": str}, ...]

_TASK = "Imagine you are a painter. Describe in one phrase of at least {min_words} words a picture that holds"
_BOTH = ' both keywords, with "next to" between them.'
_ONE = " the keyword."
_SEPARATOR = "; "
_SCENE = "Scene: "
_IN_SCENE = ", in the surroundings of the scene below"
_LEADS = (
    "above",
    "against",
    "among",
    "at",
    "behind",
    "below",
    "beside",
    "by",
    "in",
    "near",
    "next",
    "on",
    "under",
    "with",
)

_MEDIUMS = ("photo", "picture", "drawing", "painting", "cartoon", "close view")
_LOOKS = ("small", "big", "bright", "clean", "pretty", "simple", "new", "lovely", "plain", "shiny")
_PLACES = (
    "on a table",
    "on the grass",
    "in the snow",
    "on the sand",
    "by the sea",
    "in a quiet room",
    "in the garden",
    "on a wooden desk",
    "in front of a wall",
    "in a green field",
)
_LIGHTS = (
    "in soft light",
    "in bright sunlight",
    "on a sunny day",
    "in the morning",
    "in the evening",
    "in warm light",
    "under a clear sky",
    "with deep shadows",
)
_EXTRA = "with nothing else in the picture"
_OWN_KIND = re.compile(  # "a vivid oil painting of", "the photo shows", "there is"
    r"(?:(?:an?|the|this|one) (?:[\w-]+ ){0,2}?"
    r"(?:photo|photograph|picture|image|snapshot|close[ -]?up|close view|drawing|sketch|illustration|painting|cartoon)"
    r" (?:of|showing|shows|depicting|depicts|that shows)"
    r"|there (?:is|are)|this is|we see) ",
    re.IGNORECASE,
)


def dialogue(keywords: Sequence[str], min_words: int, scene: str = "") -> Dialogue:
    """Return the request for one phrase that names one keyword, or two of them next to each other.

    It is one user message, as some chat templates have no system role. scene: surroundings to describe; "" = any.
    Source: Zhang et al. 2024, sec. 3.1. Deviation: requests the phrase only, so that less has to be removed.
    """
    if len(keywords) not in (1, 2):
        raise ValueError(f"{len(keywords)} keywords {list(keywords)}: give the painter one or two")
    task = _TASK.format(min_words=min_words) + (_BOTH if len(keywords) == 2 else _ONE)
    noun = "Keywords" if len(keywords) == 2 else "Keyword"
    if scene:
        task = f"{task.removesuffix('.')}{_IN_SCENE}."
    lines = [f"{task} Answer with the phrase only.", *([_SCENE + scene] if scene else [])]
    content = "\n".join([*lines, f"{noun}: {_SEPARATOR.join(keywords)}"])
    return [{"role": "user", "content": content}]


def keywords_of(messages: Dialogue) -> tuple[str, ...]:
    """Return the keywords of a dialogue: the inverse of `dialogue`."""
    last_line = messages[-1]["content"].rpartition("\n")[2]
    return tuple(last_line.partition(": ")[2].split(_SEPARATOR))


def scene_of(messages: Dialogue) -> str:
    """Return the scene of a dialogue, "" if it has none: the inverse of `dialogue`."""
    lines = messages[-1]["content"].split("\n")
    return next((line.removeprefix(_SCENE) for line in lines if line.startswith(_SCENE)), "")


def of_kind(kind: str, phrase: str) -> str:
    """Return the phrase as a prompt for a kind of picture: "a photo of", say, takes the place of "a drawing of"."""
    bare = without_kind(phrase)
    return f"{kind} {bare[:1].lower()}{bare[1:]}"


def without_kind(phrase: str) -> str:
    """Return the phrase without the words by which it calls itself a picture, or says that something is there."""
    return _OWN_KIND.sub("", phrase, count=1) if _OWN_KIND.match(phrase) else phrase


def template_phrase(keywords: Sequence[str], min_words: int, rng: np.random.Generator, scene: str = "") -> str:
    """Return a phrase of at least `min_words` words from fixed word banks, which make a few thousand per keyword.

    A scene stands in the place of the words for place and light.
    """
    things = " next to ".join(f"a {pick(rng, _LOOKS)} {keyword}" for keyword in keywords)
    medium = pick(rng, _MEDIUMS)
    around = _around(scene) if scene else f"{pick(rng, _PLACES)} {pick(rng, _LIGHTS)}"
    phrase = f"a {medium} of {things} {around}"
    missing = max(0, min_words - len(phrase.split()))
    return " ".join([phrase, *[_EXTRA] * -(-missing // len(_EXTRA.split()))])


def _around(scene: str) -> str:
    return scene if scene.partition(" ")[0] in _LEADS else f"in front of {scene}"
