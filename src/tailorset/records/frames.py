"""Written prompts with gaps for their labels, to ask for other labels in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tailorset.records import LabelSpace, Prompt

_GAP = "{}"


class Frame(NamedTuple):
    """The text of a prompt with a gap in place of each of the labels that it requests."""

    text: str
    num_labels: int

    def fill(self, labels: Sequence[str], label_space: LabelSpace) -> str:
        """Return the text with these labels, `num_labels` of them, in its gaps."""
        return self.text.format(*(label_space.prompt_names(name)[0] for name in labels))


def frames_of(prompts: Sequence[Prompt], label_space: LabelSpace) -> list[Frame]:
    """Return a frame for every prompt that names each of its labels exactly once."""
    frames = []
    for prompt in prompts:
        text, named = label_space.without_names(prompt.text, _GAP)
        requested = [name for name in named if name in prompt.labels]
        if text.count(_GAP) == len(named) and sorted(requested) == sorted(prompt.labels):
            gaps = [_GAP if name in requested else name for name in named]
            frames.append(Frame(text.format(*gaps), len(requested)))
    return frames
