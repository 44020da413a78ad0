"""Reading replies: what is stripped, and what a phrase must be to count as a prompt."""

from __future__ import annotations

import pytest

from tailorset.replies import MAX_REPLY_CHARS, Contract, names_all, parse_reply, words_of

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


def test_numbers_that_belong_to_the_phrase_stay() -> None:
    assert parse_reply("3 cups next to a clock") == "3 cups next to a clock"
    assert parse_reply("3.5 cups next to a clock") == "3.5 cups next to a clock"


def test_endless_replies_are_read_in_part_only() -> None:
    assert len(parse_reply("a cup " * 10**6)) <= MAX_REPLY_CHARS
    assert len(parse_reply("1. " * 10**5)) < 2


WORDINGS = [("cup",), ("clock", "wall clock")]


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
    assert Contract(min_words=10).rejection(phrase, WORDINGS) == reason


def test_an_alias_counts_as_the_label() -> None:
    assert names_all("the COMPUTER  keyboard stands by the cup", [("keyboard", "computer keyboard"), ("cup",)])


def test_a_label_inside_another_labels_name_does_not_count() -> None:
    wordings = [("dog",), ("hot dog",)]
    assert not names_all("a hot dog on a plate", wordings)
    assert names_all("a dog next to a hot dog", wordings)


def test_names_are_no_regular_expressions() -> None:
    assert not names_all("a cup", [("c.p",)])
    assert not names_all("anything", [(".*",)])


def test_words_ignore_case_and_punctuation() -> None:
    assert words_of("A Cup, next-to the child's clock!") == ["a", "cup", "next-to", "the", "child's", "clock"]
