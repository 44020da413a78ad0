"""Dialogues as plain text with examples, for base models, which continue a text and have no chat template."""

from __future__ import annotations

from tailorset.prompts.wording import Dialogue

_ANSWER = "Phrase:"
_EXAMPLES = {  # number of keywords -> pairs of keywords and phrase
    1: (
        ("lighthouse", "a painting of a tall white lighthouse on a green cliff above a calm sea at sunset"),
        ("guitar", "a photo of an old wooden guitar that leans against a brick wall in soft morning light"),
        ("penguin", "a drawing of a small penguin that walks over clean snow under a clear blue sky"),
    ),
    2: (
        ("lighthouse; boat", "a painting of a white lighthouse next to a small red boat on a calm sea at sunset"),
        ("guitar; candle", "a photo of an old wooden guitar next to a burning candle on a table in a quiet room"),
        ("penguin; suitcase", "a drawing of a small penguin next to a yellow suitcase in clean snow on a sunny day"),
    ),
}


def plain_text(messages: Dialogue) -> str:
    """Return the request of `wording.dialogue` with examples before its keywords; the phrase is to follow."""
    task, _, last_line = messages[-1]["content"].rpartition("\n")
    noun, _, keywords = last_line.partition(": ")
    examples = _EXAMPLES[1 + ("; " in keywords)]
    blocks = [f"{noun}: {given}\n{_ANSWER} {phrase}" for given, phrase in examples]
    return "\n\n".join([task, *blocks, f"{noun}: {keywords}\n{_ANSWER}"])


def first_line(continuation: str) -> str:
    """Return the phrase with which a base model continues the text; further examples of its own are cut off."""
    return continuation.strip().partition("\n")[0]
