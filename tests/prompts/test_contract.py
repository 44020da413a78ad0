"""Reading replies: what is stripped, and what a phrase must be to count as a prompt."""

from __future__ import annotations

import time
from itertools import pairwise, product
from pathlib import Path

import numpy as np
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
from tailorset.prompts.wording import template_phrase
from tailorset.records import LabelSpace
from tailorset.toybox.captions import painter_phrase
from tailorset.toybox.objects import DRAWINGS

ROOT = Path(__file__).resolve().parents[2]
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
        f"Here is a phrase:\n\n> **{PHRASE}**",
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
        ("eine kleine rote Tasse (cup) neben einer Uhr (clock) auf dem Tisch", "not_english"),
        ("une petite tasse (cup) à côté d'une horloge (clock) sur la table", "not_english"),
        ("una taza roja, cup, junto a un reloj azul, clock, en la mesa", "not_english"),
        ("una tazza rossa, cup, accanto a un orologio, clock, sul tavolo", "not_english"),
        ("uma xícara vermelha, cup, ao lado de um relógio, clock, sobre a mesa", "not_english"),
        ("een rode cup op de tafel naast een blauwe clock in de keuken", "not_english"),
        ("a cup auf einem alten Tisch neben der clock mit einem Fenster", "not_english"),
        ("маленькая красная чашка (cup) рядом с большими синими часами (clock) на столе", "not_english"),
        ("一只 cup 和一个 clock 放在木桌上旁边有一扇大窗户", "not_english"),
        ("red cup, blue clock, oak table, soft light, wide view, oil painting, high detail", None),
        ("a cup and a clock in Rio de Janeiro at the café de la Paix under neon", None),
        ("cup, clock, Los Angeles, Las Vegas, neon signs, wide view, dusk, deep blue hour", None),
        ("I would paint " + PHRASE + ":", "preamble"),
        ("the user wants one phrase with a cup next to a clock on a table", "about_the_task"),
        ("so both keywords, a cup and a clock, have to be in the picture", "about_the_task"),
        ("okay so a cup and a clock, let me think about which colours", "about_the_task"),
        ("a cup next to a clock, I should also mention the table and light", "about_the_task"),
        ("a user and a painter drink from a cup below a big old clock", None),
        ("a cup next to a clock", "too_short"),
        ('{"prompt": "' + PHRASE + '"}', "markup"),
        ('["' + PHRASE + '"]', "markup"),
        ('prompt": "' + PHRASE, "markup"),
        ("<p>" + PHRASE, "markup"),
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


@pytest.mark.parametrize(
    "reply",
    [
        f'{{"prompt": "{PHRASE}"}}',
        f'{{\n  "prompt": "{PHRASE}"\n}}',
        f'```json\n{{"prompt": "{PHRASE}"}}\n```',
        f'Here is the JSON:\n```json\n["{PHRASE}"]\n```',
        f"```python\nprint('{PHRASE}')\n```",
        f'"prompt": "{PHRASE}"',
        f"<answer>{PHRASE}</answer>",
    ],
)
def test_json_tags_and_code_are_refused_as_such(reply: str) -> None:
    phrase = parse_reply(reply)
    assert Contract(SPACE, min_words=10).rejection(phrase, ("cup", "clock")) == "markup"


@pytest.mark.parametrize("fence", ["```", "```text", "```markdown"])
def test_a_fence_around_plain_words_is_stripped(fence: str) -> None:
    assert parse_reply(f"{fence}\n{PHRASE}\n```") == PHRASE


@pytest.mark.parametrize("file", sorted((ROOT / "data" / "labels").glob("[!r]*.yaml")), ids=lambda file: file.stem)
def test_no_template_of_our_labels_is_refused(file: Path) -> None:
    space = LabelSpace.load(file)
    contract = Contract(space, min_words=10)
    names = list(space.names)
    for seed, labels in enumerate([*((name,) for name in names), *pairwise(names)]):
        keywords = [space.prompt_names(label)[0] for label in labels]
        phrase = template_phrase(keywords, 10, np.random.default_rng(seed))
        assert contract.rejection(phrase, labels) is None, phrase


def test_no_phrase_or_caption_of_the_toybox_is_refused() -> None:
    contract = Contract(LabelSpace.load(ROOT / "data" / "labels" / "toybox.yaml"), min_words=10)
    rng = np.random.default_rng(0)
    names = list(DRAWINGS)
    for turn in range(2000):
        labels = [names[int(index)] for index in rng.choice(len(names), 1 + turn % 2, replace=False)]
        phrase = painter_phrase(labels, rng)
        assert contract.rejection(phrase, set(labels) & set(contract.label_space.names)) is None, phrase


def test_labels_of_any_language_and_script_are_named_in_english() -> None:
    names = [
        "día de los muertos",
        "fête de la musique sur une place",
        "кошка",
        "花見の桜の木",
        "von der Leyen und die anderen",
    ]
    space = LabelSpace.model_validate({"name": "s", "labels": [{"name": name, "seen": False} for name in names]})
    contract = Contract(space, min_words=3)
    for one, other in product(names, names):
        for phrase in (f"a {one} next to a {other} at night", f"{one} next to {other}", f"bright {one}, {other}, oil"):
            assert contract.rejection(phrase, {one, other}) is None, phrase


def test_long_texts_are_judged_in_linear_time() -> None:
    contract = Contract(SPACE, min_words=10)
    start = time.process_time()
    for text in ("de la " * 20_000, "ц" * 100_000, "{" * 100_000, "a" * 100_000 + '"', "`" * 100_000):
        contract.rejection(text, ("cup",))
    assert time.process_time() - start < 5


def test_every_reason_has_its_advice() -> None:
    assert set(ADVICE) == set(REASONS)
    refused = dict.fromkeys(REASONS, 0) | {"about_the_task": 90, "too_short": 10}
    assert main_cause(refused).startswith("90 of 100 refused replies have a phrase that is about the task instead of")


def test_words_ignore_case_and_punctuation() -> None:
    assert words_of("A Cup, next-to the child's clock!") == ["a", "cup", "next-to", "the", "child's", "clock"]
