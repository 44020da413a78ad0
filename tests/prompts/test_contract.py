"""Reading replies: what is stripped, and what a phrase must be to count as a prompt."""

from __future__ import annotations

import pytest

from tailorset.prompts.contract import (
    ADVICE,
    MAX_REPLY_CHARS,
    REASONS,
    Contract,
    ends_in_thoughts,
    main_cause,
    parse_reply,
    words_of,
)
from tailorset.records import LabelSpace

PHRASE = "a small red cup next to a big blue clock on a wooden table"


@pytest.mark.parametrize(
    "reply",
    [
        PHRASE,
        f"  {PHRASE}\n",
        f'"{PHRASE}"',
        f"“{PHRASE}.”",
        f"**{PHRASE}**",
        f"1. {PHRASE}",
        f"(1) {PHRASE}",
        f"- {PHRASE}\n- another phrase",
        f"Sure! {PHRASE}",
        f"Sure, here is a phrase for you: {PHRASE}",
        f'Sure! Here\'s one:\n\n1. "{PHRASE}"\n2. "a second phrase"',
        f"Here is the description:\n{PHRASE}\nLet me know if you want another one!",
        f"Phrase: '{PHRASE}'",
        f"<think>\nThe user wants a cup: easy.\n</think>\n\n{PHRASE}",
        f"<think>{'hm, ' * MAX_REPLY_CHARS}</think>{PHRASE}",
        f"The user wants a cup: easy.\n</think>\n\n{PHRASE}",  # the template itself begins the thoughts
        f"<Thinking>hm</Thinking>{PHRASE}",
        f"[THINK]hm[/THINK]{PHRASE}",
        f"analysisWe need a phrase.assistantfinal{PHRASE}",
        f"<|channel|>analysis<|message|>We need a phrase.<|channel|>final<|message|>{PHRASE}",
        f"\r\n\r\n{PHRASE}\r\nNote: none",
        PHRASE.replace(" ", "   "),
    ],
)
def test_what_surrounds_a_phrase_is_stripped(reply: str) -> None:
    assert parse_reply(reply) == PHRASE


@pytest.mark.parametrize(
    "reply", ["", " \n\t ", '""', "1.\n2.\n3.", "Sure, here is a phrase:", "***", "<think>hm</think>"]
)
def test_a_reply_without_a_phrase_is_empty(reply: str) -> None:
    assert parse_reply(reply) == ""


@pytest.mark.parametrize(
    "reply",
    [
        f"<think>hm, {PHRASE}",
        f"[THINK] {PHRASE}",
        f"analysisWe need {PHRASE}",
        f"{PHRASE}\n<think>or",
        "<think>a</think><think>",
    ],
)
def test_thoughts_without_an_end_are_no_phrase(reply: str) -> None:
    assert ends_in_thoughts(reply)
    assert parse_reply(reply) in ("", PHRASE)


def test_a_phrase_about_thinking_is_one() -> None:
    assert not ends_in_thoughts("a statue that thinks about analysis and reason")


def test_numbers_that_belong_to_the_phrase_stay() -> None:
    assert parse_reply("3 cups next to a clock") == "3 cups next to a clock"
    assert parse_reply("3.5 cups next to a clock") == "3.5 cups next to a clock"


def test_endless_replies_are_read_in_part_only() -> None:
    assert len(parse_reply("a cup " * 10**6)) <= MAX_REPLY_CHARS
    assert len(parse_reply("1. " * 10**5)) < 2


LABELS = [("cup", ()), ("clock", ("clock", "wall clock")), ("dog", ()), ("hot dog", ()), ("user", ())]
SPACE = LabelSpace.model_validate(
    {"name": "s", "labels": [{"name": name, "seen": False, "aliases": aliases} for name, aliases in LABELS]}
)


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [
        (PHRASE, None),
        (PHRASE.upper(), None),
        ("", "empty"),
        (PHRASE + "\n" + PHRASE, "control_characters"),
        (PHRASE + "\x00", "control_characters"),
        (PHRASE + "\u202e", "control_characters"),
        (PHRASE + "\ud800", "control_characters"),
        ("Sure, here it is: " + PHRASE, "preamble"),
        ("1. " + PHRASE, "preamble"),
        ("I would paint " + PHRASE + ":", "preamble"),
        ("the user wants one phrase with a cup next to a clock on a table", "about_the_task"),
        ("so both keywords, a cup and a clock, have to be in the picture", "about_the_task"),
        ("okay so a cup and a clock, let me think about which colours", "about_the_task"),
        ("a cup next to a clock, I should also mention the table and light", "about_the_task"),
        ("a user and a painter drink from a cup below a big old clock", None),
        ("a cup next to a clock", "too_short"),
        ("a cup next to a clock - - - - - - - - -", "too_short"),
        (PHRASE + " and more" * 30, "too_long"),
        (PHRASE + " " + "o" * 400, "too_long"),
        (PHRASE.replace("clock", "watch"), "missing_label"),
        (PHRASE.replace("cup", "cupboard"), "missing_label"),
        (PHRASE.replace("cup", "cup-cake"), "missing_label"),
    ],
)
def test_contract_names_the_clause_that_is_broken(phrase: str, reason: str | None) -> None:
    assert Contract(SPACE, min_words=10).rejection(phrase, ("cup", "clock")) == reason


def test_every_reason_has_its_advice() -> None:
    assert set(ADVICE) == set(REASONS)
    refused = dict.fromkeys(REASONS, 0) | {"about_the_task": 90, "too_short": 10}
    assert main_cause(refused).startswith("90 of 100 refused replies have a phrase that is about the task instead of")


def test_words_ignore_case_and_punctuation() -> None:
    assert words_of("A Cup, next-to the child's clock!") == ["a", "cup", "next-to", "the", "child's", "clock"]
