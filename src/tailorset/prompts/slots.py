"""Slots: the prompts to write, each known by its labels and a number before it has a text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from typing import NamedTuple

from tailorset.prompts.settings import WritePrompts
from tailorset.records import LabelSpace, prompt_id
from tailorset.seeding import numpy_rng


class Slot(NamedTuple):
    """Place of one prompt: the `number`-th that requests these labels, counted from 0."""

    labels: tuple[str, ...]
    number: int

    @property
    def prompt_id(self) -> str:
        return prompt_id(self.labels, self.number)


def all_slots(config: WritePrompts, label_space: LabelSpace, seed: int, requesting: Collection[str] = ()) -> list[Slot]:
    """Return the slots in order: pair by pair or, under a cap, a first prompt of each pair, then a second.

    requesting: only slots that request one of these labels; empty = all.
    """
    slots = _all_slots(config, label_space, seed)
    return [slot for slot in slots if set(slot.labels) & set(requesting)] if requesting else slots


def _all_slots(config: WritePrompts, label_space: LabelSpace, seed: int) -> list[Slot]:
    pairs, numbers = label_space.pairs(), range(config.prompts_per_pair)
    if config.num_prompts(label_space) == len(pairs) * len(numbers):
        return [Slot(pair, number) for pair in pairs for number in numbers]
    spread = spread_pairs(label_space, pairs, seed)
    turns = (Slot(pair, number) for number in numbers for pair in spread)
    return list(islice(turns, config.max_prompts))


def spread_pairs(label_space: LabelSpace, pairs: Sequence[tuple[str, ...]], seed: int) -> list[tuple[str, ...]]:
    """Return the pairs ordered so that every prefix contains each label about equally often, single labels first.

    The labels are placed on a circle, shuffled; first come pairs of neighbours, then pairs at distance two, and so on.
    """
    order = numpy_rng("spread pairs", seed).permutation(len(label_space.unseen))
    place = {label_space.unseen[index]: position for position, index in enumerate(order)}

    def distance(pair: tuple[str, ...]) -> tuple[int, int]:
        start, end = sorted((place[pair[0]], place[pair[-1]]))
        apart, around = end - start, len(place) - (end - start)
        return (apart, start) if apart <= around else (around, end)

    return sorted(pairs, key=distance)
