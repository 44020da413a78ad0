"""Writing prompts with scripted language models: contract, retries, template, counts, restart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from tailorset.prompts.report import metrics
from tailorset.prompts.settings import WritePrompts
from tailorset.prompts.slots import all_slots
from tailorset.prompts.wording import Dialogue, keywords_of, of_kind, template_phrase
from tailorset.prompts.writer import Ledger
from tailorset.prompts.writer import write_prompts as write_prompts_of
from tailorset.records import Label, LabelSpace
from tailorset.seeding import numpy_rng

SPACE = LabelSpace(
    name="test",
    labels=(
        Label(name="cup", seen=False),
        Label(name="keyboard", seen=False, aliases=("computer keyboard", "typing board")),
        Label(name="fish", seen=False),
        Label(name="bird", seen=True),
    ),
    confusable=frozenset({frozenset({"cup", "fish"})}),
)
PAIRS = [("cup",), ("cup", "keyboard"), ("keyboard",), ("keyboard", "fish"), ("fish",)]
CONFIG = WritePrompts.model_validate(
    {
        "prompts_per_pair": 3,
        "max_prompts": None,
        "min_words": 10,
        "max_attempts": 3,
        "kinds": [],
        "llm": {"name": "template"},
    }
)
write_prompts = partial(write_prompts_of, label_space=SPACE, seed=0, batch_size=4)


def changed(**settings: object) -> WritePrompts:
    return CONFIG.model_copy(update=settings)


def obedient(dialogues: list[Dialogue], seeds: list[int]) -> list[str]:
    return [template_phrase(keywords_of(d), 10, numpy_rng(s)) for d, s in zip(dialogues, seeds, strict=True)]


def constant(reply: str) -> Callable[[list[Dialogue], list[int]], list[str]]:
    return lambda dialogues, seeds: [reply] * len(dialogues)


def last(ledgers: object) -> Ledger:
    *_, ledger = ledgers  # type: ignore[misc]
    return ledger


class Recorder:
    """Passes on the questions and keeps them."""

    def __init__(self, answer: Callable[[list[Dialogue], list[int]], list[str]]) -> None:
        self.answer = answer
        self.asked: list[tuple[tuple[str, ...], int]] = []

    def __call__(self, dialogues: list[Dialogue], seeds: list[int]) -> list[str]:
        self.asked += [(keywords_of(d), s) for d, s in zip(dialogues, seeds, strict=True)]
        return self.answer(dialogues, seeds)


def test_every_pair_gets_its_prompts() -> None:
    ledger = last(write_prompts(obedient, config=CONFIG))
    assert [prompt.labels for prompt in ledger.prompts] == [pair for pair in PAIRS for _ in range(3)]
    assert len({prompt.prompt_id for prompt in ledger.prompts}) == len({p.text for p in ledger.prompts}) == 15
    assert metrics(ledger)["prompts/raw_acceptance"] == 1
    assert {(prompt.origin, prompt.attempt) for prompt in ledger.prompts} == {("llm", 1)}


def test_prompts_of_some_labels_are_those_of_all_that_request_them() -> None:
    every, some = (last(write_prompts(obedient, config=CONFIG, requesting=names)) for names in ((), {"fish"}))
    assert some.prompts == tuple(prompt for prompt in every.prompts if "fish" in prompt.labels)
    assert len(some.prompts) == 6


@pytest.mark.parametrize("max_prompts", [5, 9, 14, 15, 99])
def test_a_cap_spreads_the_prompts_over_labels_and_pairs(max_prompts: int) -> None:
    config = changed(max_prompts=max_prompts)
    prompts = last(write_prompts(obedient, config=config)).prompts
    assert len(prompts) == min(max_prompts, 15) == config.num_prompts(SPACE)
    of_pairs = Counter(prompt.labels for prompt in prompts)
    assert set(of_pairs) == set(PAIRS)
    assert max(of_pairs.values()) - min(of_pairs.values()) <= 1


def test_below_one_prompt_a_pair_every_label_turns_up_equally_often() -> None:
    names = [f"label {number}" for number in range(40)]
    space = LabelSpace.model_validate({"name": "many", "labels": [{"name": name, "seen": False} for name in names]})
    for max_prompts in (40, 80, 100, 240):
        slots = all_slots(changed(max_prompts=max_prompts), space, seed=0)
        assert len(set(slots)) == max_prompts
        times = Counter(label for slot in slots for label in slot.labels)
        assert set(times) == set(names)
        assert max(times.values()) - min(times.values()) <= 2
        assert slots[:40] == [slot for slot in slots if len(slot.labels) == 1]


@pytest.mark.parametrize("wording", ["keyboard", "computer keyboard", "Typing Board"])
def test_keywords_are_the_first_alias_and_any_alias_or_the_name_is_accepted(wording: str) -> None:
    llm = Recorder(lambda _, seeds: [f"picture {s} of a {wording} beside a cup with one small fish" for s in seeds])
    assert metrics(last(write_prompts(llm, config=CONFIG)))["prompts/origin/llm"] == 15
    assert ("cup", "computer keyboard") in [keywords for keywords, _ in llm.asked]


def test_a_retry_asks_only_for_what_is_missing_and_with_new_seeds() -> None:
    def no_fish_at_first(dialogues: list[Dialogue], seeds: list[int]) -> list[str]:
        replies = obedient(dialogues, seeds)
        return ["no" if "fish" in reply and len(llm.asked) <= 16 else reply for reply in replies]

    llm = Recorder(no_fish_at_first)
    ledger = last(write_prompts(llm, config=CONFIG))
    assert len(llm.asked) == 15 + 6
    assert all("fish" in keywords for keywords, _ in llm.asked[15:])
    assert len({seed for _, seed in llm.asked}) == 21
    assert {p.labels for p in ledger.prompts if (p.origin, p.attempt) == ("retry", 2)} == {
        ("keyboard", "fish"),
        ("fish",),
    }
    figures = metrics(ledger)
    assert (figures["prompts/origin/llm"], figures["prompts/origin/retry"]) == (9, 6)
    assert figures["prompts/rejected/too_short"] == 6
    assert figures["prompts/raw_acceptance"] == pytest.approx(9 / 15)


@pytest.mark.parametrize("max_attempts", [0, 1, 3])
def test_the_budget_ends_and_the_template_steps_in(max_attempts: int) -> None:
    llm = Recorder(constant("I cannot help with that."))
    ledger = last(write_prompts(llm, config=changed(max_attempts=max_attempts)))
    assert len(llm.asked) == 15 * max_attempts
    figures = metrics(ledger)
    assert figures["prompts/origin/template"] == figures["prompts/distinct_texts"] == 15
    assert figures["prompts/rejected/too_short"] == 15 * max_attempts
    assert figures["prompts/raw_acceptance"] == 0


def test_one_text_is_used_once() -> None:
    reply = "a cup and a fish and a keyboard in the warm light of one long evening"
    ledger = last(write_prompts(constant(reply), config=CONFIG))
    assert [prompt.text for prompt in ledger.prompts].count(reply) == 1
    assert ledger.counts["rejected/duplicate"] == 14 * 3
    assert metrics(ledger)["prompts/distinct_texts"] == 15


def test_a_repaired_reply_is_accepted_but_not_as_raw() -> None:
    ledger = last(
        write_prompts(lambda d, s: [f"Sure! Here it is:\n1. {reply}" for reply in obedient(d, s)], config=CONFIG)
    )
    assert metrics(ledger)["prompts/origin/llm"] == 15
    assert metrics(ledger)["prompts/raw_acceptance"] == 0


@pytest.mark.parametrize("stop_after", [1, 2, 5, 8])
def test_a_restart_ends_as_if_uninterrupted_and_asks_nothing_twice(stop_after: int) -> None:
    def half(dialogues: list[Dialogue], seeds: list[int]) -> list[str]:
        return [r if s % 2 else "no" for r, s in zip(obedient(dialogues, seeds), seeds, strict=True)]

    whole = Recorder(half)
    expected = last(write_prompts(whole, config=CONFIG))
    interrupted = Recorder(half)
    ledgers = write_prompts(interrupted, config=CONFIG)
    for _ in range(stop_after):
        ledger = next(ledgers)
    stored = Ledger.model_validate_json(ledger.model_dump_json())
    assert last(write_prompts(interrupted, config=CONFIG, ledger=stored)) == expected
    assert interrupted.asked == whole.asked
    assert last(write_prompts(interrupted, config=CONFIG, ledger=expected)) == expected


def odd_strings(count: int = 1000) -> list[str]:
    pieces = [
        "",
        " ",
        "\n",
        "\x00",
        "\x1b[31m",
        "../../../etc/passwd",
        "/tmp/x",
        "C:\\x",
        "{0.__class__}",
        "%s%n",
        "$(rm x)",
        "`ls`",
        "__import__('os')",
        "<script>",
        "</think>",
        "<think>",
        "\u202e",
        "\ud800",
        "\U0001f600",
        "é",
        "日本",
        "1.",
        "-",
        '"',
        "'",
        "Sure:",
        "next to",
        "cup",
        "computer keyboard",
        "fish",
        "a cup",
        "cupfish",
        "NaN",
        "null",
        "[" * 50,
        "a" * 5000,
        "(" * 30,
        "\r\n",
        "\t",
        "\u2028",
        "\ufeff",
        "::",
        "|",
        "\\",
        "a big cup next to a small computer keyboard and one old fish at home",
    ]
    rng = numpy_rng("odd")
    return ["".join(pieces[int(i)] for i in rng.integers(len(pieces), size=rng.integers(1, 9))) for _ in range(count)]


def test_odd_replies_neither_crash_nor_become_prompts_that_break_the_contract() -> None:
    replies = iter(odd_strings())
    llm = Recorder(lambda dialogues, seeds: [next(replies) for _ in dialogues])
    ledger = last(write_prompts(llm, config=changed(prompts_per_pair=50), batch_size=32))
    assert len(llm.asked) >= 700
    assert metrics(ledger)["prompts/origin/llm"] > 0
    assert len(ledger.prompts) == 250
    for prompt in ledger.prompts:
        assert prompt.text.isprintable()
        assert 10 <= len(prompt.text.split()) <= 60
        for label in prompt.labels:
            names = (label, *SPACE.prompt_names(label))
            assert any(re.search(rf"\b{re.escape(name)}\b", prompt.text.lower()) for name in names)


def test_an_llm_that_swallows_a_dialogue_is_refused() -> None:
    with pytest.raises(ValueError, match="3 replies to 4 dialogues"):
        last(write_prompts(lambda dialogues, seeds: obedient(dialogues, seeds)[1:], config=CONFIG))


def test_more_templates_than_there_are_is_an_error_not_an_endless_loop() -> None:
    with pytest.raises(ValueError, match="lower prompts_per_pair"):
        last(write_prompts(obedient, config=changed(prompts_per_pair=5000, min_words=54, max_attempts=0)))


def test_no_reply_is_asked_for_that_could_not_be_taken() -> None:
    llm = Recorder(obedient)
    with pytest.raises(ValueError, match=r"no prompt can name label 'cup'.*is too long: lower write_prompts"):
        last(write_prompts(llm, config=changed(prompts_per_pair=1, min_words=100, max_attempts=1)))
    assert not llm.asked


@pytest.mark.parametrize(
    "phrase",
    [
        "a cup on a table",
        "A cup on a table",
        "a drawing of a cup on a table",
        "there is a cup on a table",
        "A vivid oil painting of a cup on a table",
        "an illustration showing a cup on a table",
        "The image shows a cup on a table",
    ],
)
def test_the_kind_of_picture_replaces_the_replys_own(phrase: str) -> None:
    assert of_kind("a photo of", phrase) == "a photo of a cup on a table"


def test_a_picture_among_the_things_stays() -> None:
    phrase = "a cup next to a picture of a fish"
    assert of_kind("a snapshot of", phrase) == f"a snapshot of {phrase}"


def test_prompts_of_a_pair_request_each_kind_in_turn() -> None:
    ledger = last(write_prompts(obedient, config=changed(kinds=("a photo of", "a drawing of"))))
    assert metrics(ledger)["prompts/raw_acceptance"] == 1
    for number, prompt in enumerate(ledger.prompts):
        assert re.match(("a photo of a ", "a drawing of a ", "a photo of a ")[number % 3], prompt.text)
        assert not re.search("picture|painting|cartoon|close view", prompt.text)
        assert len(prompt.text.split()) >= 10


def test_templates_request_the_kind_too() -> None:
    prompts = last(write_prompts(constant("no"), config=changed(kinds=("a photo of",)))).prompts
    assert {prompt.origin for prompt in prompts} == {"template"}
    assert all(prompt.text.startswith("a photo of a ") for prompt in prompts)


def test_a_label_that_is_a_kind_of_picture_is_not_lost() -> None:
    space = LabelSpace(name="art", labels=(Label(name="painting", seen=False),))
    reply = "a painting of a wild grey sea under a dark sky at night"
    ledger = last(
        write_prompts(constant(reply), label_space=space, config=changed(prompts_per_pair=1, kinds=("a photo of",)))
    )
    assert [prompt.text for prompt in ledger.prompts] == [f"a photo of {reply}"]
