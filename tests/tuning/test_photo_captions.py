"""Captions of photos: worded like the prompts, and true about the labels."""

from __future__ import annotations

import pytest
import torch

from tailorset.records import Label, LabelSpace, Prompt, prompt_id
from tailorset.tuning.photo_captions import PhotoCaptions

SPACE = LabelSpace(
    name="street",
    labels=(
        *(Label(name=name, seen=True) for name in ("traffic light", "dog", "bench")),
        *(Label(name=name, seen=False) for name in ("kite", "hot dog", "clock")),
    ),
)
TEXTS = {
    ("kite",): "a photo of a red kite in the snow",
    ("hot dog", "clock"): "a photo of a hot dog next to a green clock, on a table",
}
PROMPTS = [
    Prompt(prompt_id=prompt_id(labels, 0), text=text, labels=labels, origin="llm", attempt=1)
    for labels, text in TEXTS.items()
]


def captions(shown: set[str], number: int = 30) -> set[str]:
    writer = PhotoCaptions(PROMPTS, SPACE, seed=0)
    targets = torch.tensor([int(label.name in shown) if label.seen else -1 for label in SPACE.labels])
    return {writer.caption(targets, f"train-{i}") for i in range(number)}


def test_a_caption_is_a_prompt_with_the_labels_of_the_photo() -> None:
    assert captions({"dog"}) == {"a photo of a red dog in the snow"}
    assert captions({"traffic light", "bench"}) == {
        "a photo of a traffic light next to a green bench on a table",
        "a photo of a bench next to a green traffic light on a table",
    }


def test_of_many_labels_two_are_named_and_never_an_unseen_one() -> None:
    found = captions({"traffic light", "dog", "bench"}, 100)
    assert len(found) == 6
    assert all(len(SPACE.named_in(text)) == 2 and SPACE.named_in(text) <= set(SPACE.seen) for text in found)


def test_without_prompts_of_pairs_one_label_is_named() -> None:
    writer = PhotoCaptions(PROMPTS[:1], SPACE, seed=0)
    text = writer.caption(torch.tensor([1, 1, 1, -1, -1, -1]), "train-0")
    assert len(SPACE.named_in(text)) == 1


def test_a_prompt_that_names_its_label_twice_is_no_pattern() -> None:
    twice = PROMPTS[0].model_copy(update={"text": "a photo of a kite and another kite"})
    assert PhotoCaptions([twice, *PROMPTS], SPACE, seed=0).frames == PhotoCaptions(PROMPTS, SPACE, seed=0).frames
    with pytest.raises(ValueError, match=r"none of 1 prompts .* set tune_unet\.num_updates to 0"):
        PhotoCaptions([twice], SPACE, seed=0)


def test_another_label_that_a_prompt_happens_to_name_stays() -> None:
    """NUS-WIDE has a label "photo", and every prompt begins with "a photo of"."""
    beside = PROMPTS[0].model_copy(update={"text": "a photo of a red kite behind a bench"})
    writer = PhotoCaptions([beside], SPACE, seed=0)
    assert writer.caption(torch.tensor([0, 1, 0, -1, -1, -1]), "x") == "a photo of a red dog behind a bench"


def test_a_photo_with_fewer_labels_than_any_prompt_has_no_caption() -> None:
    writer = PhotoCaptions(PROMPTS[1:], SPACE, seed=0)
    assert writer.caption(torch.tensor([0, 1, 0, -1, -1, -1]), "x") == ""
    assert writer.caption(torch.tensor([0, 1, 1, -1, -1, -1]), "x")


def test_a_label_is_named_as_prompts_name_it() -> None:
    labels = (Label(name="tie_2", seen=True, aliases=("necktie",)), *SPACE.labels[3:])
    writer = PhotoCaptions(PROMPTS, LabelSpace(name="aliases", labels=labels), seed=0)
    assert writer.caption(torch.tensor([1, -1, -1, -1]), "x") == "a photo of a red necktie in the snow"
