"""From what a language model answered to one phrase, and the contract such a phrase has to meet.

A reply is untrusted text: it is read with regular expressions that need linear time, never evaluated and never
part of a path.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Reason = Literal["empty", "control_characters", "preamble", "too_short", "too_long", "missing_label", "duplicate"]
REASONS: tuple[Reason, ...] = get_args(Reason)

MAX_REPLY_CHARS = 4000  # what follows is not read
_QUOTES = "\"'`*_“”‘’«»„"
_AROUND_WORDS = string.punctuation + _QUOTES + "–—…"
_NUMBERING = re.compile(r"(?:[-*•–]|#{1,6}|\(?\d{1,3}[.):])(?=\s|$)\s*")
_SPEECH = re.compile(
    r"(?:(?:sure|certainly|of course|okay|absolutely|great)\b[^:]{0,200}:"  # Sure, here is one:
    r"|(?:sure|certainly|of course|okay|absolutely|great)\s*[!,.]"  # Certainly!
    r"|(?:here(?:['’]s| is| are)|as a painter|i am|i['’]m|i would|i['’]d)\b[^:]{0,200}(?::|$)"
    r"|(?:the |my )?(?:phrase|prompt|answer|description|caption|keywords?)\s*\d{0,3}\s*:)\s*",
    re.IGNORECASE,
)


def parse_reply(reply: str) -> str:
    """The first phrase of a reply without reasoning, preamble, numbering and quotes; "" if there is none."""
    text = reply[:MAX_REPLY_CHARS].rpartition("</think>")[2]
    phrases = (_bare(line) for line in text.splitlines())
    return next((phrase for phrase in phrases if phrase and not phrase.endswith(":")), "")


def words_of(text: str) -> list[str]:
    """Its words in lower case, without the punctuation around them. Equal words mean a duplicate."""
    words = (word.strip(_AROUND_WORDS) for word in text.casefold().split())
    return [word for word in words if any(map(str.isalnum, word))]


def names_all(text: str, wordings: Sequence[Sequence[str]]) -> bool:
    """Does the text name every label by one of its wordings, as whole words?

    wordings: for each label the names that count. The longest one wins, so "a hot dog" does not name a dog where
    both are asked for.
    """
    label_of = {_folded(name): index for index, names in enumerate(wordings) for name in names}
    longest_first = sorted(label_of, key=len, reverse=True)
    pattern = rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])"
    found = {label_of[match] for match in re.findall(pattern, _folded(text))}
    return len(found) == len(wordings)


@dataclass(frozen=True)
class Contract:
    """What a prompt has to be: one plain line of min_words to max_words words that names its labels."""

    min_words: int
    max_words: int = 60  # about what the 77 tokens of CLIP's text encoders hold
    max_chars: int = 400

    def rejection(self, phrase: str, wordings: Sequence[Sequence[str]]) -> Reason | None:
        """The first clause a phrase breaks, or None. Duplicates are for the caller to see."""
        num_words = len(words_of(phrase))
        broken: dict[Reason, bool] = {
            "empty": not phrase.strip(),
            "control_characters": any(unicodedata.category(char)[0] == "C" for char in phrase),
            "preamble": bool(_NUMBERING.match(phrase) or _SPEECH.match(phrase)),
            "too_short": num_words < self.min_words,
            "too_long": num_words > self.max_words or len(phrase) > self.max_chars,
            "missing_label": not names_all(phrase, wordings),
        }
        return next((reason for reason, is_broken in broken.items() if is_broken), None)


def _bare(line: str) -> str:
    """The line without what stands around the phrase, peeled off layer by layer."""
    text = " ".join(line.split())
    while True:
        peeled = _NUMBERING.sub("", text, count=1) if _NUMBERING.match(text) else text
        peeled = _SPEECH.sub("", peeled, count=1) if _SPEECH.match(peeled) else peeled
        peeled = peeled.strip(_QUOTES + " ")
        if peeled == text:
            return text.removesuffix(".").rstrip(_QUOTES + " ")
        text = peeled


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
