"""Scenes for prompts, from captions of photos: plain words in which no label is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Protocol

import pandas as pd
from PIL import Image

from tailorset.prompts.language import is_foreign
from tailorset.records import LabelSpace
from tailorset.storage.shards import load_images

CAPTIONS = "captions/"  # prefix of counts
STAND_IN = "something"  # in the place of a label's name
MIN_WORDS, MAX_WORDS = 2, 20  # of a scene; MIN_WORDS without articles and stand-ins
_ARTICLES = ("a", "an", "the")


class CaptionWriter(Protocol):
    """A captioner, as far as it is used here: see tailorset.llms.captioners."""

    batch_size: int

    def caption(self, photos: list[Image.Image]) -> list[str]: ...


@dataclass(frozen=True)
class Scenes:
    """texts: at least one; a scene of several photos is repeated. counts: for the report, see `scenes_of`."""

    texts: tuple[str, ...]
    counts: dict[str, int]


def write_captions(captioner: CaptionWriter, photos: pd.DataFrame, folder: Path) -> Iterator[dict[str, str]]:
    """Yield the captions of one batch of photos after another, {image_id: caption}.

    photos: rows of the manifest in `folder`.

    Raises:
        ValueError: the captioner returns another number of captions.
    """
    images_by_id = load_images(photos, folder)
    while batch := list(islice(images_by_id, captioner.batch_size)):
        ids, images = zip(*batch, strict=True)
        texts = captioner.caption(list(images))
        if len(texts) != len(images):
            raise ValueError(
                f"the captioner gave {len(texts)} captions for {len(images)} photos: it must give one each"
            )
        yield dict(zip(ids, texts, strict=True))


def scenes_of(captions: Iterable[str], label_space: LabelSpace) -> Scenes:
    """Return the scenes that captions describe, without the names of labels, seen or unseen.

    counts: "captions/photos", "captions/without_scene" (too little is left of the caption, or it is not in English),
    "captions/names_replaced" and, for each label that a caption names, "captions/names_replaced/<label>".

    Raises:
        ValueError: no caption describes a scene.
    """
    texts: list[str] = []
    named: Counter[str] = Counter()
    num_photos = 0
    for caption in captions:
        num_photos += 1
        text, labels = label_space.without_names(caption, STAND_IN)
        named.update(labels)
        words = list(_plain(text.split()[:MAX_WORDS]))
        own = [word for word in words if word not in (*_ARTICLES, STAND_IN)]
        if len(own) >= MIN_WORDS and not is_foreign(text):
            texts.append(" ".join(words))
    if not texts:
        raise ValueError(
            f"none of {num_photos} captions describes a scene in English: choose another"
            " write_prompts.captions.captioner, or remove write_prompts.captions"
        )
    counts = {"photos": num_photos, "without_scene": num_photos - len(texts), "names_replaced": named.total()}
    counts |= {f"names_replaced/{label}": number for label, number in sorted(named.items())}
    return Scenes(tuple(texts), {f"{CAPTIONS}{key}": number for key, number in counts.items()})


def _plain(words: list[str]) -> Iterator[str]:
    """Yield the words but for articles before a stand-in: "a something" reads badly."""
    for word, following in zip_longest(words, words[1:]):
        if not (word in _ARTICLES and following == STAND_IN):
            yield word
