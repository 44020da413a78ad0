"""Which label is served next, and by which prompt: the ways to spend the budget of a round.

`uniform`: every pair in equal shares, as published. `turns`: labels take turns, each with its least drawn prompt.
`thompson`: the label most short of its quota, with the prompt that promises most by what was kept before.

Letters: P prompts, R pairs (what a prompt requests, be it one label or more), U unseen labels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from tailorset.records import Prompt
from tailorset.seeding import numpy_rng

PRIOR_IMAGES = (
    4.0  # what a prior weighs against images; prompts of a toybox pair differ as much as 3 to 6 would let them
)


@dataclass
class Ledger:
    """What was drawn and kept so far.

    wants: (P, U) bool; pair: (P,) row of `pair_wants`: (R, U) bool; drawn, kept: (P,) images of finished rounds.
    """

    wants: np.ndarray
    pair: np.ndarray
    pair_wants: np.ndarray
    drawn: np.ndarray
    kept: np.ndarray

    @classmethod
    def of(cls, prompts: Sequence[Prompt], labels: Sequence[str]) -> Ledger:
        column = {label: i for i, label in enumerate(labels)}
        wants = np.zeros((len(prompts), len(labels)), dtype=bool)
        requested = [tuple(sorted({column[label] for label in prompt.labels})) for prompt in prompts]
        for row, columns in zip(wants, requested, strict=True):
            row[list(columns)] = True
        in_order = sorted(set(requested), key=lambda columns: [-column for column in columns])  # as rows of `wants`
        number = {columns: i for i, columns in enumerate(in_order)}
        pair = np.array([number[columns] for columns in requested])
        pair_wants = np.empty((len(number), len(labels)), dtype=bool)
        pair_wants[pair] = wants
        return cls(wants, pair, pair_wants, *np.zeros((2, len(prompts)), dtype=int))

    def by_pair(self, images: np.ndarray) -> np.ndarray:
        """(P,) counts of prompts as (R,) counts of pairs."""
        return np.bincount(self.pair, images, minlength=len(self.pair_wants)).astype(int)

    def by_label(self, images: np.ndarray) -> np.ndarray:
        """(P,) counts of prompts as (U,) counts of the labels they request."""
        return _sums(self.by_pair(images), self.pair_wants)


@dataclass
class Plan:
    """A round in the making.

    usable: (P,) bool, no label given up; quota, target, expected: (U,) kept images wished for, aimed at, foreseen;
    charged, limit: (U,) candidates drawn for a label, and the most they may come to; images: (P,) with those planned.
    """

    ledger: Ledger
    usable: np.ndarray
    quota: np.ndarray
    target: np.ndarray
    expected: np.ndarray
    charged: np.ndarray
    limit: np.ndarray
    images: np.ndarray

    @property
    def short(self) -> np.ndarray:
        """(U,) bool: labels that need more than is foreseen."""
        return self.expected < self.target

    @property
    def open(self) -> np.ndarray:
        """(U,) bool: labels that are short and may pay for another candidate."""
        return self.short & (self.charged < self.limit)

    def book(self, prompt: int, payer: int, chance: float | np.ndarray) -> tuple[int, int]:
        """Plan one more image; chance: that it will be kept, one for all or (U,) for each label."""
        self.images[prompt] += 1
        self.charged[payer] += 1
        self.expected += self.ledger.wants[prompt] * chance
        return prompt, payer

    def prompts_by_label(self) -> list[np.ndarray]:
        """For each label the positions of its usable prompts."""
        return [np.flatnonzero(column & self.usable) for column in self.ledger.wants.T]

    def least_drawn(self, prompts: np.ndarray) -> int:
        return int(prompts[self.images[prompts].argmin()])


class Allocation(Protocol):
    """round_images: the most candidates to plan before their outcome is seen; None leaves it to the quotas."""

    @property
    def round_images(self) -> int | None: ...

    def may_draw(self, ledger: Ledger, quota: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """(P,) bool: those of the `usable` prompts that have not given all they may; quota: (U,)."""

    def choices(self, plan: Plan) -> Iterator[tuple[int, int]]:
        """Yield (prompt, label that pays), each booked in `plan`, until no label is open or no prompt may be drawn."""


class Unlimited:
    """No cap on a prompt, and rounds as large as the quotas want them."""

    round_images: int | None = None

    def may_draw(self, ledger: Ledger, quota: np.ndarray, usable: np.ndarray) -> np.ndarray:
        return usable


class Uniform(Unlimited):
    """Every pair that serves a label short of its quota takes its turn, with its least drawn prompt."""

    def choices(self, plan: Plan) -> Iterator[tuple[int, int]]:
        ledger, rates = plan.ledger, label_rates(plan.ledger)
        by_pair = np.flatnonzero(plan.usable)[np.argsort(ledger.pair[plan.usable], kind="stable")]
        of_pair = np.split(
            by_pair, np.bincount(ledger.pair[plan.usable], minlength=len(ledger.pair_wants)).cumsum()[:-1]
        )

        def draw(pair: int) -> tuple[int, int] | None:
            payers = np.flatnonzero(ledger.pair_wants[pair] & plan.open)
            if not len(payers):
                return None
            payer = int(payers[plan.charged[payers].argmin()])
            return plan.book(plan.least_drawn(of_pair[pair]), payer, rates)

        fewest_first = np.argsort(ledger.by_pair(plan.images), kind="stable")
        return in_turn([pair for pair in fewest_first if len(of_pair[pair])], draw)


class Turns(Unlimited):
    """Labels short of their quota take turns, each with its least drawn prompt."""

    def choices(self, plan: Plan) -> Iterator[tuple[int, int]]:
        rates, of_label = label_rates(plan.ledger), plan.prompts_by_label()

        def draw(label: int) -> tuple[int, int] | None:
            return plan.book(plan.least_drawn(of_label[label]), label, rates) if plan.open[label] else None

        return in_turn(np.flatnonzero(plan.open).tolist(), draw)


@dataclass(frozen=True)
class Thompson:
    """The label most short of its quota, with the prompt of the largest expected gain by a sample of the posterior.

    gain: `images`, the chance to be kept; or `labels`, that chance times how many requested labels are still short.
    Of a label's quota one prompt and one pair give at most their share, be all their images kept; a share below an
    equal one, among those not given up, means the equal one.
    Source: Thompson 1933; Beta-Bernoulli as in Russo et al. 2018, sec. 3.
    """

    seed: int
    round_images: int
    gain: Literal["images", "labels"]
    max_share_per_prompt: float
    max_share_per_pair: float

    def may_draw(self, ledger: Ledger, quota: np.ndarray, usable: np.ndarray) -> np.ndarray:
        of_prompt, of_pair = self.room(ledger, quota, usable)
        return usable & (of_prompt > 0) & (of_pair[ledger.pair] > 0)

    def choices(self, plan: Plan) -> Iterator[tuple[int, int]]:
        ledger, of_label = plan.ledger, plan.prompts_by_label()
        alpha, beta = posterior(ledger)
        of_prompt, of_pair = self.room(ledger, plan.quota, plan.usable)
        rng = numpy_rng(self.seed, "allocation", int(ledger.drawn.sum()))
        served = np.ones(len(plan.quota), dtype=bool)
        while (waiting := plan.open & served).any():
            missing = (plan.target - plan.expected) / plan.quota
            label = int(np.where(waiting, missing, -np.inf).argmax())
            prompts = of_label[label]
            prompts = prompts[(of_prompt[prompts] > 0) & (of_pair[ledger.pair[prompts]] > 0)]
            if not len(prompts):
                served[label] = False
                continue
            gain = rng.beta(alpha[prompts], beta[prompts])
            if self.gain == "labels":
                gain *= ledger.wants[prompts] @ plan.short.astype(int)
            prompt = int(prompts[gain.argmax()])
            of_prompt[prompt] -= 1
            of_pair[ledger.pair[prompt]] -= 1
            yield plan.book(prompt, label, alpha[prompt] / (alpha[prompt] + beta[prompt]))

    def room(self, ledger: Ledger, quota: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P,) and (R,) images that each prompt and each pair may still give."""
        of_prompt = most_kept(ledger.wants, usable, quota, self.max_share_per_prompt)
        of_pair = most_kept(ledger.pair_wants, ledger.by_pair(usable) > 0, quota, self.max_share_per_pair)
        return of_prompt - ledger.kept, of_pair - ledger.by_pair(ledger.kept)


def build(name: str, **settings: Any) -> Allocation:
    """The allocation of that name; settings: those of `Thompson`, for which the others have no use.

    Raises: ValueError for an unknown name.
    """
    if name == "thompson":
        return Thompson(**settings)
    if name not in ("uniform", "turns"):
        raise ValueError(f"unknown allocation {name!r}; choose uniform, turns or thompson")
    return Uniform() if name == "uniform" else Turns()


def in_turn(takers: Iterable[int], draw: Callable[[int], tuple[int, int] | None]) -> Iterator[tuple[int, int]]:
    """What the takers draw one after the other; who draws nothing leaves."""
    turns = deque(takers)
    while turns:
        taker = turns.popleft()
        if (choice := draw(taker)) is not None:
            yield choice
            turns.append(taker)


def label_rates(ledger: Ledger) -> np.ndarray:
    """(U,) share of a label's candidates that were kept, 1 where nothing was drawn."""
    return (ledger.by_label(ledger.kept) + 1) / (ledger.by_label(ledger.drawn) + 1)


def most_kept(wants: np.ndarray, usable: np.ndarray, quota: np.ndarray, max_share: float) -> np.ndarray:
    """(n,) most kept images of each row of `wants`: (n, U) bool, by the strictest of its labels; usable: (n,) bool."""
    equal_share = 1 / np.maximum(wants[usable].sum(0), 1)
    of_label = np.ceil(np.maximum(max_share, equal_share) * quota)
    rows, labels = np.nonzero(wants)
    most = np.full(len(wants), np.inf)
    np.minimum.at(most, rows, of_label[labels])
    return most.astype(int)


def posterior(ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """(P,) alpha and beta of each prompt's chance to be kept: its own images and, as the prior, its pair's rate.

    The prior of a pair's rate is the mean rate of its labels, that of a label's rate is everybody's: each among
    the prompts that request as many labels, since a label alone is kept more often than one in company.
    """
    drawn, kept = ledger.by_pair(ledger.drawn), ledger.by_pair(ledger.kept)
    size = ledger.pair_wants.sum(1)
    prior = np.empty(len(size))
    for rows in (size == n for n in np.unique(size)):
        wants = ledger.pair_wants[rows]
        everybody = (kept[rows].sum() + 1) / (drawn[rows].sum() + 2)
        of_label = _shrunk(_sums(kept[rows], wants), _sums(drawn[rows], wants), everybody)
        of_row, labels = np.nonzero(wants)
        prior[rows] = np.bincount(of_row, of_label[labels], minlength=len(wants)) / size[rows]
    rate = _shrunk(kept, drawn, prior)[ledger.pair]
    return PRIOR_IMAGES * rate + ledger.kept, PRIOR_IMAGES * (1 - rate) + ledger.drawn - ledger.kept


def _sums(images: np.ndarray, wants: np.ndarray) -> np.ndarray:
    """images @ wants, (R,) and (R, U) bool -> (U,) int, without the copy that numpy makes, eight times `wants`."""
    rows, labels = np.nonzero(wants)
    return np.bincount(labels, images[rows], minlength=wants.shape[1]).astype(int)


def _shrunk(kept: np.ndarray, drawn: np.ndarray, prior: float | np.ndarray) -> np.ndarray:
    """Rates, drawn toward their prior as if that were PRIOR_IMAGES more images."""
    return (kept + PRIOR_IMAGES * prior) / (drawn + PRIOR_IMAGES)
