"""Reduce the reply of a language model to one phrase, and check the contract that a phrase must meet.

A reply is untrusted text: it is read with regular expressions that need linear time, never evaluated and never
part of a path.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tailorset.prompts.language import is_foreign
from tailorset.prompts.token_limit import TokenLimit
from tailorset.records import LabelSpace

Reason = Literal[
    "thinking",
    "empty",
    "control_characters",
    "markup",
    "preamble",
    "not_english",
    "too_short",
    "about_the_task",
    "too_long",
    "missing_label",
    "label_cut_off",
    "duplicate",
]
REASONS: tuple[Reason, ...] = get_args(Reason)

ANOTHER_LLM = "choose an instruction-tuned LLM without a thinking mode, or a larger one"
SHORTER = "lower write_prompts.min_words, shorten the label's first alias"
ADVICE: dict[Reason, tuple[str, str]] = {  # the fault of such a phrase, and the remedy
    "thinking": (
        "ends within the model's thoughts",
        f"{ANOTHER_LLM}, or raise write_prompts.llm.max_new_tokens (or the limit in write_prompts.llm.extra_body); a"
        " server may have a switch of its own against thinking for extra_body",
    ),
    "empty": ("is empty", ANOTHER_LLM),
    "control_characters": ("has invisible characters", ANOTHER_LLM),
    "markup": (
        "is JSON, tags or code instead of plain words",
        "switch structured output off (response_format, a JSON schema or a grammar: in write_prompts.llm.extra_body, or"
        " in the server's own settings), or choose another LLM",
    ),
    "preamble": ("talks to the user before it describes a picture", ANOTHER_LLM),
    "not_english": (
        "is not in English, in which it was asked for",
        "remove a system prompt in another language from the server, or choose an LLM that answers in English",
    ),
    "too_short": ("has fewer than write_prompts.min_words words", "lower it, or choose a larger LLM"),
    "about_the_task": ("is about the task instead of a picture", ANOTHER_LLM),
    "too_long": ("is too long", f"{SHORTER}, or choose another LLM"),
    "missing_label": ("does not name its labels", "give the labels aliases that people use, or choose a larger LLM"),
    "label_cut_off": (
        "names a label beyond what the generator's text encoder reads",
        f"{SHORTER}, or choose a less talkative LLM",
    ),
    "duplicate": ("is there already", "raise write_prompts.llm.temperature, or lower write_prompts.prompts_per_pair"),
}

MAX_REPLY_CHARS = 4000  # the rest is not read
_THOUGHTS = "think|thinking|thoughts?|reason|reasoning|reflection|analysis"
_THOUGHTS_BEGIN = re.compile(
    rf"<(?:{_THOUGHTS})>|\[(?:{_THOUGHTS})\]|<\|channel\|>analysis|^\s*analysis(?=(?:We|The|User|Need)\b)",
    re.IGNORECASE,
)
_THOUGHTS_END = re.compile(
    rf"</(?:{_THOUGHTS})>|\[/(?:{_THOUGHTS})\]|<\|channel\|>final(?:<\|message\|>)?|assistantfinal", re.IGNORECASE
)
_TASK = re.compile(
    r"\b(?:the user|users? (?:wants?|asks?|asked|needs?|said|requests?)"
    r"|let(?:'s| us| me) (?:think|see|try|start|make|craft|write|create|come|check|count|break|figure|consider)"
    r"|i(?:'ll|'m| am| should| need| must| have to| think| will| can| could| want)|we (?:need|should|must|have to)"
    r"|(?:both|the|these|two|given) keywords?|(?:one|a|the|this|my) (?:phrase|prompt|sentence|response|answer|reply)"
    r"|\d+ words|at least \w+ words|word count|the (?:task|request|instructions?|requirements?))\b",
    re.IGNORECASE,
)
_QUOTES = "\"'`*_“”‘’«»„"
_AROUND_WORDS = string.punctuation + _QUOTES + "–—…"
_PLAIN_FENCE = re.compile(r"`{3,}(?:text|txt|plaintext|plain|markdown|md)?$", re.IGNORECASE)
_MARKUP = re.compile(r"[{}<>]|^\[|^```|^\w+[\"']\s*:")  # JSON, or the rest of it; tags; a fence of code
_NUMBERING = re.compile(r"(?:[-*•–>]|#{1,6}|\(?\d{1,3}[.):])(?=\s|$)\s*")
_SPEECH = re.compile(
    r"(?:(?:sure|certainly|of course|okay|absolutely|great)\b[^:]{0,200}:"  # Sure, here is one:
    r"|(?:sure|certainly|of course|okay|absolutely|great)\s*[!,.]"  # Certainly!
    r"|(?:here(?:['’]s| is| are)|as a painter|i am|i['’]m|i would|i['’]d)\b[^:]{0,200}(?::|$)"
    r"|(?:the |my )?(?:phrase|prompt|answer|description|caption|keywords?)\s*\d{0,3}\s*:)\s*",
    re.IGNORECASE,
)


def parse_reply(reply: str) -> str:
    """Return the first phrase of a reply without reasoning, preamble, numbering and quotes; "" if there is none."""
    phrases = (_bare(line) for line in _without_thoughts(reply)[:MAX_REPLY_CHARS].splitlines())
    return next((phrase for phrase in phrases if phrase and not phrase.endswith(":")), "")


def after_thoughts(reply: str) -> str:
    """Return the text after the last end of thoughts; their beginning may be missing, as part of the chat template."""
    return _THOUGHTS_END.split(reply)[-1]


def ends_in_thoughts(reply: str) -> bool:
    """Check whether a reply begins to reason and does not finish."""
    return bool(_THOUGHTS_BEGIN.search(after_thoughts(reply)))


def refused_replies(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return reason -> number of refused replies, from the stage's metrics."""
    return {reason: metrics[f"prompts/rejected/{reason}"] for reason in REASONS}


def main_cause(refused: Mapping[str, float]) -> str:
    """Return the most frequent reason of refusal with its remedy; refused: of `refused_replies`, not all 0."""
    reason = max(REASONS, key=lambda reason: refused[reason])
    problem, remedy = ADVICE[reason]
    total = sum(refused.values())
    return f"{refused[reason]:.0f} of {total:.0f} refused replies have a phrase that {problem}: {remedy}"


def words_of(text: str) -> list[str]:
    """Return the words in lower case without the punctuation around them. Equal words mean a duplicate."""
    words = (word.strip(_AROUND_WORDS) for word in text.casefold().split())
    return [word for word in words if any(map(str.isalnum, word))]


@dataclass(frozen=True)
class Contract:
    """The rules for a prompt: one plain line of min_words to max_words words about a picture that names its labels.

    limit: of the text encoders that will read it; the labels must be named within it. None = they read everything.
    """

    label_space: LabelSpace
    min_words: int
    limit: TokenLimit | None = None
    max_words: int = 60
    max_chars: int = 400

    def rejection(self, phrase: str, labels: Collection[str]) -> Reason | None:
        """Return the first rule that a phrase breaks, or None. The caller checks for duplicates."""
        num_words = len(words_of(phrase))
        broken: dict[Reason, bool] = {
            "empty": not phrase.strip(),
            "control_characters": any(unicodedata.category(char)[0] == "C" for char in phrase),
            "markup": bool(_MARKUP.search(phrase)),
            "preamble": bool(_NUMBERING.match(phrase) or _SPEECH.match(phrase)),
            "not_english": is_foreign(self.label_space.without_names(phrase, "")[0]),
            "too_short": num_words < self.min_words,
            "about_the_task": bool(_TASK.search(phrase.replace("’", "'"))),
            "too_long": num_words > self.max_words or len(phrase) > self.max_chars,
            "missing_label": not self.names(phrase, labels),
        }
        if reason := next((reason for reason, is_broken in broken.items() if is_broken), None):
            return reason
        is_read = self.limit is None or self.names(self.limit.read(phrase), labels)
        return None if is_read else "label_cut_off"

    def names(self, text: str, labels: Collection[str]) -> bool:
        return self.label_space.named_in(text) >= set(labels)


def _without_thoughts(reply: str) -> str:
    return _THOUGHTS_BEGIN.split(after_thoughts(reply), maxsplit=1)[0]


def _bare(line: str) -> str:
    """Return the phrase of a line: numbering, preamble and quotes are removed layer by layer.

    The fence of a block of code stays: what follows it is not a phrase.
    """
    text = " ".join(line.split())
    if text.startswith("```") and " " not in text:
        return "" if _PLAIN_FENCE.match(text) else text
    while True:
        peeled = _NUMBERING.sub("", text, count=1) if _NUMBERING.match(text) else text
        peeled = _SPEECH.sub("", peeled, count=1) if _SPEECH.match(peeled) else peeled
        peeled = peeled.strip(_QUOTES + " ")
        if peeled == text:
            return text.removesuffix(".").rstrip(_QUOTES + " ")
        text = peeled
