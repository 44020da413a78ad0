"""Prompts for the unseen labels: asked of a language model, checked against the contract, asked for again.

A slot is one prompt to be written: some labels and a number. Every slot is filled: by the first reply ("llm"), by
a later one ("retry"), or by a template once every round of asking is spent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from pydantic import Field

from tailorset.prompts.contract import ADVICE, REASONS, Contract, Reason, ends_in_thoughts, parse_reply, words_of
from tailorset.prompts.token_limit import TokenLimit
from tailorset.prompts.wording import Dialogue, dialogue, template_phrase
from tailorset.records import LabelSpace, Prompt, Record, prompt_id
from tailorset.seeding import numpy_rng, sample_seed

Ask = Callable[[list[Dialogue], list[int]], list[str]]  # dialogues and their seeds -> one reply each

ORIGINS: tuple[Literal["llm", "retry", "template"], ...] = ("llm", "retry", "template")
TEMPLATE_DRAWS = 1000
FEW_DRAWS = 20  # that name a label before its first prompt is asked for


class Slot(NamedTuple):
    labels: tuple[str, ...]
    number: int

    @property
    def prompt_id(self) -> str:
        return prompt_id(self.labels, self.number)


@dataclass(frozen=True)
class Recipe:
    """How many prompts to write and how hard to try; `batch_size` slots are asked for at a time.

    max_prompts: where there are more slots, so many of them, spread over labels and pairs; None = all.
    """

    prompts_per_pair: int
    min_words: int
    max_attempts: int
    batch_size: int
    seed: int
    max_prompts: int | None = None

    def num_prompts(self, label_space: LabelSpace) -> int:
        return num_prompts(label_space, self.prompts_per_pair, self.max_prompts)

    def slots(self, label_space: LabelSpace) -> list[Slot]:
        """What is to be written, in order: pair by pair or, under a cap, a first prompt of each pair, then a second."""
        pairs, numbers = label_space.pairs(), range(self.prompts_per_pair)
        if self.num_prompts(label_space) == len(pairs) * len(numbers):
            return [Slot(pair, number) for pair in pairs for number in numbers]
        spread = spread_pairs(label_space, pairs, self.seed)
        turns = (Slot(pair, number) for number in numbers for pair in spread)
        return list(islice(turns, self.max_prompts))


class Ledger(Record):
    """Where the writing stands: what a restart needs to go on as if nothing had happened.

    counts: "first_replies", "raw_accepted" (first replies that meet the contract as they came), "rejected/<reason>".
    """

    attempt: int = 1
    asked: int = 0  # slots asked in this attempt
    prompts: tuple[Prompt, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)


def write_prompts(
    ask: Ask, label_space: LabelSpace, recipe: Recipe, ledger: Ledger | None = None, limit: TokenLimit | None = None
) -> Iterator[Ledger]:
    """Fill every slot; yields the ledger after each batch, and last the complete one, prompts in slot order.

    Each round asks only for slots still empty. With a ledger it goes on from there: batches are the same ones.
    limit: of the generator's text encoders.
    Source: Zhang et al. 2024, sec. 3.1. Deviation: replies are checked, repeated and counted.

    Raises:
        ValueError: a label cannot be named by any prompt.
    """
    contract = Contract(label_space, recipe.min_words, limit)
    for problem in unwritable(contract):
        raise ValueError(problem)
    writer = _Writer(contract, recipe, ledger or Ledger())
    for attempt in range(writer.ledger.attempt, recipe.max_attempts + 1):
        empty = writer.empty_before(attempt)
        start = writer.ledger.asked if attempt == writer.ledger.attempt else 0
        for position in range(start, len(empty), recipe.batch_size):
            yield writer.asked(ask, empty[position : position + recipe.batch_size], attempt, position)
    yield writer.completed()


def unwritable(contract: Contract) -> Iterator[str]:
    """Each unseen label that no template can name, with the reason: asking a model for it would be in vain."""
    for label in contract.label_space.unseen:
        keyword = contract.label_space.prompt_names(label)[0]
        rngs = (numpy_rng("try", label, draw) for draw in range(FEW_DRAWS))
        phrases = [template_phrase([keyword], contract.min_words, rng) for rng in rngs]
        reasons = [contract.rejection(phrase, [label]) for phrase in phrases]
        if reasons[0] and all(reasons):
            problem, remedy = ADVICE[reasons[0]]
            yield f"no prompt can name label {label!r}: even the template {phrases[0]!r} {problem}: {remedy}"


def num_prompts(label_space: LabelSpace, prompts_per_pair: int, max_prompts: int | None) -> int:
    """How many prompts are written for the unseen labels."""
    total = len(label_space.pairs()) * prompts_per_pair
    return total if max_prompts is None else min(total, max_prompts)


def spread_pairs(label_space: LabelSpace, pairs: Sequence[tuple[str, ...]], seed: int) -> list[tuple[str, ...]]:
    """The pairs in an order of which any beginning holds each label about equally often, single labels first.

    The labels stand in a circle, shuffled; first come pairs of neighbours, then those two apart, and so on.
    """
    order = numpy_rng("spread pairs", seed).permutation(len(label_space.unseen))
    place = {label_space.unseen[index]: position for position, index in enumerate(order)}

    def distance(pair: tuple[str, ...]) -> tuple[int, int]:
        start, end = sorted((place[pair[0]], place[pair[-1]]))
        apart, around = end - start, len(place) - (end - start)
        return (apart, start) if apart <= around else (around, end)

    return sorted(pairs, key=distance)


def metrics(ledger: Ledger, limit: TokenLimit | None = None) -> dict[str, float]:
    """Flat figures of a complete ledger; shares are in [0, 1], tokens are those of the generator's text encoders."""
    texts = [prompt.text for prompt in ledger.prompts]
    origins = Counter(prompt.origin for prompt in ledger.prompts)
    first_replies = ledger.counts.get("first_replies", 0)
    return {
        "prompts/count": len(texts),
        **{f"prompts/origin/{origin}": origins[origin] for origin in ORIGINS},
        "prompts/raw_acceptance": ledger.counts.get("raw_accepted", 0) / max(1, first_replies),
        "prompts/distinct_1": distinct(texts, 1),
        "prompts/distinct_2": distinct(texts, 2),
        "prompts/distinct_texts": len({" ".join(words_of(text)) for text in texts}),
        **{f"prompts/rejected/{reason}": ledger.counts.get(f"rejected/{reason}", 0) for reason in REASONS},
        **(_token_figures(texts, limit) if limit else {}),
    }


def _token_figures(texts: Sequence[str], limit: TokenLimit) -> dict[str, float]:
    """Tokens of the longest prompt, and prompts whose end no text encoder reads."""
    return {
        "prompts/tokens_max": max(map(limit.count, texts), default=0),
        "prompts/end_cut_off": sum(limit.excess(text) > 0 for text in texts),
    }


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams of words as a share of all n-grams, in [0, 1]; 0 for no text. Source: Li et al. 2016."""
    words = [words_of(text) for text in texts]
    ngrams = [tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)]
    return len(set(ngrams)) / max(1, len(ngrams))


class _Writer:
    """The ledger of one run, and what is derived from it."""

    def __init__(self, contract: Contract, recipe: Recipe, ledger: Ledger) -> None:
        self.contract, self.recipe, self.ledger = contract, recipe, ledger
        self.slots = recipe.slots(contract.label_space)
        self.taken = {_fingerprint(prompt.text) for prompt in ledger.prompts}

    def empty_before(self, attempt: int) -> list[Slot]:
        """The slots that no earlier attempt has filled."""
        filled = {prompt.prompt_id for prompt in self.ledger.prompts if prompt.attempt < attempt}
        return [slot for slot in self.slots if slot.prompt_id not in filled]

    def asked(self, ask: Ask, slots: Sequence[Slot], attempt: int, position: int) -> Ledger:
        """Ask for these slots and take what meets the contract."""
        replies = ask([self._dialogue(slot) for slot in slots], [self._seed(slot, attempt) for slot in slots])
        if len(replies) != len(slots):
            raise ValueError(f"the LLM gave {len(replies)} replies to {len(slots)} dialogues: it must give one each")
        counts = Counter(self.ledger.counts)
        prompts = [self._judged(*pair, attempt, counts) for pair in zip(slots, replies, strict=True)]
        self.ledger = Ledger(
            attempt=attempt,
            asked=position + len(slots),
            prompts=(*self.ledger.prompts, *[prompt for prompt in prompts if prompt]),
            counts=dict(counts),
        )
        return self.ledger

    def completed(self) -> Ledger:
        """The ledger with a template in every slot that is still empty."""
        written = {prompt.prompt_id: prompt for prompt in self.ledger.prompts}
        prompts = tuple(written.get(slot.prompt_id) or self._template(slot) for slot in self.slots)
        self.ledger = self.ledger.model_copy(update={"prompts": prompts})
        return self.ledger

    def _judged(self, slot: Slot, reply: str, attempt: int, counts: Counter[str]) -> Prompt | None:
        phrase = parse_reply(reply)
        reason: Reason | None = "thinking" if ends_in_thoughts(reply) else self.contract.rejection(phrase, slot.labels)
        if reason is None and _fingerprint(phrase) in self.taken:
            reason = "duplicate"
        if attempt == 1:
            counts["first_replies"] += 1
            counts["raw_accepted"] += reason is None and self.contract.rejection(reply.strip(), slot.labels) is None
        if reason is not None:
            counts[f"rejected/{reason}"] += 1
            return None
        self.taken.add(_fingerprint(phrase))
        return self._prompt(slot, phrase, "llm" if attempt == 1 else "retry", attempt)

    def _template(self, slot: Slot) -> Prompt:
        """A template phrase that no other prompt has; its attempt is 0, as no round of asking brought it."""
        for draw in range(TEMPLATE_DRAWS):
            rng = numpy_rng("template", self.recipe.seed, slot.prompt_id, draw)
            phrase = template_phrase(self._keywords(slot), self.recipe.min_words, rng)
            if _fingerprint(phrase) not in self.taken and not self.contract.rejection(phrase, slot.labels):
                self.taken.add(_fingerprint(phrase))
                return self._prompt(slot, phrase, "template", 0)
        raise ValueError(
            f"the template has no new phrase of {self.contract.min_words} to {self.contract.max_words} words for"
            f" {slot.labels} among {TEMPLATE_DRAWS} draws: lower prompts_per_pair ({self.recipe.prompts_per_pair})"
            " or min_words, or shorten the labels' aliases"
        )

    def _prompt(self, slot: Slot, text: str, origin: Literal["llm", "retry", "template"], attempt: int) -> Prompt:
        return Prompt(prompt_id=slot.prompt_id, text=text, labels=slot.labels, origin=origin, attempt=attempt)

    def _dialogue(self, slot: Slot) -> Dialogue:
        return dialogue(self._keywords(slot), self.recipe.min_words)

    def _seed(self, slot: Slot, attempt: int) -> int:
        return sample_seed("write_prompts", self.recipe.seed, slot.prompt_id, attempt)

    def _keywords(self, slot: Slot) -> tuple[str, ...]:
        return tuple(self.contract.label_space.prompt_names(label)[0] for label in slot.labels)


def _fingerprint(text: str) -> str:
    return " ".join(words_of(text))
