"""Prompts for the unseen labels: a language model writes each, and its reply is checked against the contract.

Every slot is filled: by the first reply ("llm"), by a reply of a later round ("retry"), or by a template ("template")
after the last round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from pydantic import Field

from tailorset.prompts.captions import Scenes
from tailorset.prompts.contract import (
    ADVICE,
    Contract,
    Reason,
    ends_in_thoughts,
    parse_reply,
    words_of,
)
from tailorset.prompts.settings import WritePrompts
from tailorset.prompts.slots import Slot, all_slots
from tailorset.prompts.token_limit import TokenLimit
from tailorset.prompts.wording import Dialogue, dialogue, of_kind, template_phrase, without_kind
from tailorset.records import LabelSpace, Origin, Prompt, Record
from tailorset.seeding import numpy_rng, sample_seed

Ask = Callable[[list[Dialogue], list[int]], list[str]]  # dialogues and their seeds -> one reply each

TEMPLATE_DRAWS = 1000
FEW_DRAWS = 20  # templates that are tried with a label before any reply is requested


class Ledger(Record):
    """State of the writing: all that a restart needs to continue as if nothing had happened.

    counts: "first_replies", "raw_accepted" (first replies that meet the contract as they came), "rejected/<reason>",
    and those of the captions, if scenes come from them.
    """

    attempt: int = 1
    asked: int = 0  # slots of this attempt that have a reply
    prompts: tuple[Prompt, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)


def write_prompts(
    ask: Ask,
    label_space: LabelSpace,
    config: WritePrompts,
    seed: int,
    batch_size: int,
    ledger: Ledger | None = None,
    limit: TokenLimit | None = None,
    requesting: Collection[str] = (),
    scenes: Scenes | None = None,
) -> Iterator[Ledger]:
    """Fill every slot; yield the ledger after each batch, and last the complete one, prompts in slot order.

    Each round asks only for slots that are still empty, `batch_size` at a time. With a ledger it continues from there,
    in the same batches.
    limit: of the generator's text encoders. requesting: only slots that request one of these labels; empty = all.
    scenes: surroundings, of which each slot has one by its id; None = any.
    Source: Zhang et al. 2024, sec. 3.1. Deviation: replies are checked, repeated and counted.

    Raises:
        ValueError: a label cannot be named by any prompt.
    """
    contract = Contract(label_space, config.min_words, limit)
    if problem := next(unwritable(contract), None):
        raise ValueError(problem)
    slots = all_slots(config, label_space, seed, requesting)
    writer = _Writer(contract, config, seed, ledger or Ledger(), slots, scenes)
    for attempt in range(writer.ledger.attempt, config.max_attempts + 1):
        empty = writer.empty_before(attempt)
        start = writer.ledger.asked if attempt == writer.ledger.attempt else 0
        for position in range(start, len(empty), batch_size):
            yield writer.asked(ask, empty[position : position + batch_size], attempt, position)
    yield writer.completed()


def unwritable(contract: Contract) -> Iterator[str]:
    """Yield a problem for each unseen label that no template can name: no reply of a model could be accepted."""
    for label in contract.label_space.unseen:
        keyword = contract.label_space.prompt_names(label)[0]
        rngs = (numpy_rng("try", label, draw) for draw in range(FEW_DRAWS))
        phrases = [template_phrase([keyword], contract.min_words, rng) for rng in rngs]
        reasons = [contract.rejection(phrase, [label]) for phrase in phrases]
        if reasons[0] and all(reasons):
            problem, remedy = ADVICE[reasons[0]]
            yield f"no prompt can name label {label!r}: even the template {phrases[0]!r} {problem}: {remedy}"


class _Writer:
    """The ledger of one run, with what is derived from it."""

    def __init__(
        self,
        contract: Contract,
        config: WritePrompts,
        seed: int,
        ledger: Ledger,
        slots: Sequence[Slot],
        scenes: Scenes | None,
    ) -> None:
        self.contract = contract
        self.config = config
        self.seed = seed
        self.ledger = ledger.model_copy(update={"counts": ledger.counts | scenes.counts}) if scenes else ledger
        self.slots = slots
        self.scenes = scenes.texts if scenes else ()
        self.taken = {_fingerprint(prompt.text) for prompt in ledger.prompts}

    def empty_before(self, attempt: int) -> list[Slot]:
        """Return the slots that no earlier attempt has filled."""
        filled = {prompt.prompt_id for prompt in self.ledger.prompts if prompt.attempt < attempt}
        return [slot for slot in self.slots if slot.prompt_id not in filled]

    def asked(self, ask: Ask, slots: Sequence[Slot], attempt: int, position: int) -> Ledger:
        """Ask for these slots, and accept the replies that meet the contract."""
        replies = ask([self._dialogue(slot) for slot in slots], [self._seed(slot, attempt) for slot in slots])
        if len(replies) != len(slots):
            raise ValueError(f"the LLM gave {len(replies)} replies to {len(slots)} dialogues: it must give one each")
        counts = Counter(self.ledger.counts)
        prompts = [self._checked(*pair, attempt, counts) for pair in zip(slots, replies, strict=True)]
        self.ledger = Ledger(
            attempt=attempt,
            asked=position + len(slots),
            prompts=(*self.ledger.prompts, *[prompt for prompt in prompts if prompt]),
            counts=dict(counts),
        )
        return self.ledger

    def completed(self) -> Ledger:
        """Return the ledger with a template in every slot that is still empty."""
        written = {prompt.prompt_id: prompt for prompt in self.ledger.prompts}
        prompts = tuple(written.get(slot.prompt_id) or self._template(slot) for slot in self.slots)
        self.ledger = self.ledger.model_copy(update={"prompts": prompts})
        return self.ledger

    def _checked(self, slot: Slot, reply: str, attempt: int, counts: Counter[str]) -> Prompt | None:
        phrase = parse_reply(reply)
        text = self._text(slot, phrase)
        reason: Reason | None = "thinking" if ends_in_thoughts(reply) else self.contract.rejection(phrase, slot.labels)
        reason = reason or self.contract.rejection(text, slot.labels)
        if reason is None and _fingerprint(text) in self.taken:
            reason = "duplicate"
        if attempt == 1:
            counts["first_replies"] += 1
            counts["raw_accepted"] += reason is None and self.contract.rejection(reply.strip(), slot.labels) is None
        if reason is not None:
            counts[f"rejected/{reason}"] += 1
            return None
        self.taken.add(_fingerprint(text))
        return self._prompt(slot, text, "llm" if attempt == 1 else "retry", attempt)

    def _template(self, slot: Slot) -> Prompt:
        """Return a template phrase that no other prompt has; its attempt is 0, as it comes from no round of asking."""
        for draw in range(TEMPLATE_DRAWS):
            rng = numpy_rng("template", self.seed, slot.prompt_id, draw)
            phrase = template_phrase(self._keywords(slot), self.config.min_words, rng, self._scene(slot))
            text = self._text(slot, phrase)
            if _fingerprint(text) not in self.taken and not self.contract.rejection(text, slot.labels):
                self.taken.add(_fingerprint(text))
                return self._prompt(slot, text, "template", 0)
        raise ValueError(
            f"the template has no new phrase of {self.contract.min_words} to {self.contract.max_words} words for"
            f" {slot.labels} among {TEMPLATE_DRAWS} draws: lower prompts_per_pair ({self.config.prompts_per_pair})"
            " or min_words, or shorten the labels' aliases"
        )

    def _text(self, slot: Slot, phrase: str) -> str:
        """Return the phrase as a prompt for the kind of picture that this slot is to get."""
        if not self.config.kinds:
            return phrase
        kind = self.config.kinds[slot.number % len(self.config.kinds)]
        keeps_labels = self.contract.names(without_kind(phrase), slot.labels)  # not so if a label is "painting"
        return of_kind(kind, phrase) if keeps_labels else f"{kind} {phrase}"

    def _prompt(self, slot: Slot, text: str, origin: Origin, attempt: int) -> Prompt:
        return Prompt(prompt_id=slot.prompt_id, text=text, labels=slot.labels, origin=origin, attempt=attempt)

    def _dialogue(self, slot: Slot) -> Dialogue:
        return dialogue(self._keywords(slot), self.config.min_words, self._scene(slot))

    def _scene(self, slot: Slot) -> str:
        if not self.scenes:
            return ""
        return self.scenes[sample_seed("scene", self.seed, slot.prompt_id) % len(self.scenes)]

    def _seed(self, slot: Slot, attempt: int) -> int:
        return sample_seed("write_prompts", self.seed, slot.prompt_id, attempt)

    def _keywords(self, slot: Slot) -> tuple[str, ...]:
        return tuple(self.contract.label_space.prompt_names(label)[0] for label in slot.labels)


def _fingerprint(text: str) -> str:
    return " ".join(words_of(text))
