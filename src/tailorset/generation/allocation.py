"""Allocators: which label is served next, and by which prompt, when the budget of a round is spent.

`uniform`: every pair in equal shares, as published. `turns`: labels take turns, each with its least drawn prompt.
`thompson`: the label furthest below its quota, with the prompt that promises most given what was kept so far.

Shapes: P prompts, R pairs (what a prompt requests, be it one label or more), U unseen labels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tailorset.generation.settings import Allocation
from tailorset.records import Prompt, requested_mask
from tailorset.seeding import numpy_rng

PRIOR_IMAGES = 4.0  # weight of a prior, in images; the prompts of a toybox pair vary as 3 to 6 predict


@dataclass
class DrawCounts:
    """Numbers of images drawn and kept so far.

    requested: (P, U) bool; pair: (P,) each prompt's row of `pair_requested`: (R, U) bool; drawn, kept: (P,) images of
    finished rounds.
    """

    requested: np.ndarray
    pair: np.ndarray
    pair_requested: np.ndarray
    drawn: np.ndarray
    kept: np.ndarray

    @classmethod
    def of(cls, prompts: Sequence[Prompt], labels: Sequence[str]) -> DrawCounts:
        """Return counts of 0; pairs are in the order of their rows, as np.unique has it."""
        requested = requested_mask([prompt.labels for prompt in prompts], labels)
        columns = [tuple(np.flatnonzero(row).tolist()) for row in requested]
        number = {pair: i for i, pair in enumerate(sorted(set(columns), key=_order_as_row))}
        pair = np.array([number[each] for each in columns])
        pair_requested = np.empty((len(number), len(labels)), dtype=bool)
        pair_requested[pair] = requested
        nothing = np.zeros(len(prompts), dtype=int)
        return cls(requested, pair, pair_requested, drawn=nothing, kept=nothing.copy())

    def by_pair(self, images: np.ndarray) -> np.ndarray:
        """(P,) counts of prompts as (R,) counts of pairs."""
        return np.bincount(self.pair, images, minlength=len(self.pair_requested)).astype(int)

    def by_label(self, images: np.ndarray) -> np.ndarray:
        """(P,) counts of prompts as (U,) counts of the labels they request."""
        return _sums(self.by_pair(images), self.pair_requested)


def _order_as_row(columns: tuple[int, ...]) -> list[int]:
    """Return a sort key for a pair's columns: pairs are ordered like their rows of bool, False before True."""
    return [-column for column in columns]


@dataclass
class RoundPlan:
    """A round while it is planned.

    usable: (P,) bool, no requested label is given up. quota, target, expected: (U,) kept images: the quota, this
    round's target, the number expected so far. charged, limit: (U,) candidates charged to a label, and the most that
    may be. images: (P,) images drawn, with those planned.
    """

    counts: DrawCounts
    usable: np.ndarray
    quota: np.ndarray
    target: np.ndarray
    expected: np.ndarray
    charged: np.ndarray
    limit: np.ndarray
    images: np.ndarray

    @property
    def short(self) -> np.ndarray:
        """(U,) bool: labels that need more images than are expected."""
        return self.expected < self.target

    @property
    def open(self) -> np.ndarray:
        """(U,) bool: labels that are short and may pay for another candidate."""
        return self.short & (self.charged < self.limit)

    def book(self, prompt: int, payer: int, chance: float | np.ndarray) -> tuple[int, int]:
        """Plan one more image; chance: that it will be kept, one for all or (U,) for each label."""
        self.images[prompt] += 1
        self.charged[payer] += 1
        self.expected += self.counts.requested[prompt] * chance
        return prompt, payer

    def prompts_by_label(self) -> list[np.ndarray]:
        """Return for each label the positions of its usable prompts."""
        return [np.flatnonzero(column & self.usable) for column in self.counts.requested.T]

    def least_drawn(self, prompts: np.ndarray) -> int:
        return int(prompts[self.images[prompts].argmin()])


class Allocator(Protocol):
    """round_images: the most candidates to plan before their outcome is known; None leaves it to the quotas."""

    @property
    def round_images(self) -> int | None: ...

    def may_draw(self, counts: DrawCounts, quota: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """(P,) bool: those of the `usable` prompts that are below their caps; quota: (U,)."""

    def choices(self, plan: RoundPlan) -> Iterator[tuple[int, int]]:
        """Yield (prompt, label that pays), each booked in `plan`, until no label is open or no prompt may be drawn."""


class Unlimited:
    """No cap on a prompt, and rounds as large as the quotas need."""

    round_images: int | None = None

    def may_draw(self, counts: DrawCounts, quota: np.ndarray, usable: np.ndarray) -> np.ndarray:
        return usable


class Uniform(Unlimited):
    """Every pair that serves a label short of its quota takes its turn, with its least drawn prompt."""

    def choices(self, plan: RoundPlan) -> Iterator[tuple[int, int]]:
        counts, rates = plan.counts, label_rates(plan.counts)
        by_pair = np.flatnonzero(plan.usable)[np.argsort(counts.pair[plan.usable], kind="stable")]
        sizes = np.bincount(counts.pair[plan.usable], minlength=len(counts.pair_requested))
        of_pair = np.split(by_pair, sizes.cumsum()[:-1])

        def draw(pair: int) -> tuple[int, int] | None:
            payers = np.flatnonzero(counts.pair_requested[pair] & plan.open)
            if not len(payers):
                return None
            payer = int(payers[plan.charged[payers].argmin()])
            return plan.book(plan.least_drawn(of_pair[pair]), payer, rates)

        fewest_first = np.argsort(counts.by_pair(plan.images), kind="stable")
        return in_turn([pair for pair in fewest_first if len(of_pair[pair])], draw)


class Turns(Unlimited):
    """Labels short of their quota take turns, each with its least drawn prompt."""

    def choices(self, plan: RoundPlan) -> Iterator[tuple[int, int]]:
        rates, of_label = label_rates(plan.counts), plan.prompts_by_label()

        def draw(label: int) -> tuple[int, int] | None:
            return plan.book(plan.least_drawn(of_label[label]), label, rates) if plan.open[label] else None

        return in_turn(np.flatnonzero(plan.open).tolist(), draw)


@dataclass(frozen=True)
class Thompson:
    """The label furthest below its quota, with the prompt of the largest gain in a sample of the posterior.

    config.gain: `images`, the chance to be kept; or `labels`, that chance times the number of requested labels that
    are still short. A prompt (or pair) supplies at most its share of a label's quota, even if every image is kept; the
    share is never smaller than an equal split among the usable prompts (or pairs) of the label.
    Source: Thompson 1933; Beta-Bernoulli as in Russo et al. 2018, sec. 3.
    """

    config: Allocation
    seed: int

    @property
    def round_images(self) -> int:
        return self.config.round_images

    def may_draw(self, counts: DrawCounts, quota: np.ndarray, usable: np.ndarray) -> np.ndarray:
        of_prompt, of_pair = self.remaining(counts, quota, usable)
        return usable & (of_prompt > 0) & (of_pair[counts.pair] > 0)

    def choices(self, plan: RoundPlan) -> Iterator[tuple[int, int]]:
        counts, of_label = plan.counts, plan.prompts_by_label()
        alpha, beta = posterior(counts)
        of_prompt, of_pair = self.remaining(counts, plan.quota, plan.usable)
        rng = numpy_rng(self.seed, "allocation", int(counts.drawn.sum()))
        served = np.ones(len(plan.quota), dtype=bool)
        while (waiting := plan.open & served).any():
            missing = (plan.target - plan.expected) / plan.quota
            label = int(np.where(waiting, missing, -np.inf).argmax())
            prompts = of_label[label]
            prompts = prompts[(of_prompt[prompts] > 0) & (of_pair[counts.pair[prompts]] > 0)]
            if not len(prompts):
                served[label] = False
                continue
            gain = rng.beta(alpha[prompts], beta[prompts])
            if self.config.gain == "labels":
                gain *= counts.requested[prompts] @ plan.short.astype(int)
            prompt = int(prompts[gain.argmax()])
            of_prompt[prompt] -= 1
            of_pair[counts.pair[prompt]] -= 1
            yield plan.book(prompt, label, alpha[prompt] / (alpha[prompt] + beta[prompt]))

    def remaining(self, counts: DrawCounts, quota: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P,) and (R,) images that each prompt and each pair may still supply."""
        of_prompt = most_kept(counts.requested, usable, quota, self.config.max_share_per_prompt)
        usable_pairs = counts.by_pair(usable) > 0
        of_pair = most_kept(counts.pair_requested, usable_pairs, quota, self.config.max_share_per_pair)
        return of_prompt - counts.kept, of_pair - counts.by_pair(counts.kept)


def build(config: Allocation, seed: int) -> Allocator:
    """Return the allocator that the config names."""
    if config.name == "thompson":
        return Thompson(config, seed)
    return Uniform() if config.name == "uniform" else Turns()


def in_turn(takers: Iterable[int], draw: Callable[[int], tuple[int, int] | None]) -> Iterator[tuple[int, int]]:
    """Let each taker draw in turn; drop a taker that draws nothing."""
    turns = deque(takers)
    while turns:
        taker = turns.popleft()
        if (choice := draw(taker)) is not None:
            yield choice
            turns.append(taker)


def label_rates(counts: DrawCounts) -> np.ndarray:
    """(U,) (kept + 1) / (drawn + 1) of a label's candidates: near the share that was kept, 1 before any was drawn."""
    return (counts.by_label(counts.kept) + 1) / (counts.by_label(counts.drawn) + 1)


def most_kept(requested: np.ndarray, usable: np.ndarray, quota: np.ndarray, max_share: float) -> np.ndarray:
    """(n,) most kept images of each row of `requested`: (n, U) bool, by its strictest label; usable: (n,) bool."""
    equal_share = 1 / np.maximum(requested[usable].sum(0), 1)
    of_label = np.ceil(np.maximum(max_share, equal_share) * quota)
    rows, labels = np.nonzero(requested)
    most = np.full(len(requested), np.inf)
    np.minimum.at(most, rows, of_label[labels])
    return most.astype(int)


def posterior(counts: DrawCounts) -> tuple[np.ndarray, np.ndarray]:
    """(P,) alpha and beta of each prompt's chance to be kept: its own images and, as the prior, its pair's rate.

    The prior of a pair's rate is the mean rate of its labels, and that of a label's rate is the overall rate: each
    among the prompts that request as many labels, since a label alone is kept more often than one in company.
    """
    drawn, kept = counts.by_pair(counts.drawn), counts.by_pair(counts.kept)
    sizes = counts.pair_requested.sum(1)
    prior = np.empty(len(sizes))
    for size in np.unique(sizes):
        rows = sizes == size
        requested = counts.pair_requested[rows]
        overall = (kept[rows].sum() + 1) / (drawn[rows].sum() + 2)
        of_label = _shrunk(_sums(kept[rows], requested), _sums(drawn[rows], requested), overall)
        labels = np.nonzero(requested)[1].reshape(-1, size)  # of each pair
        prior[rows] = of_label[labels].mean(1)
    rate = _shrunk(kept, drawn, prior)[counts.pair]
    return PRIOR_IMAGES * rate + counts.kept, PRIOR_IMAGES * (1 - rate) + counts.drawn - counts.kept


def _sums(images: np.ndarray, requested: np.ndarray) -> np.ndarray:
    """images @ requested, (R,) and (R, U) bool -> (U,) int, without numpy's copy, eight times as large."""
    rows, labels = np.nonzero(requested)
    return np.bincount(labels, images[rows], minlength=requested.shape[1]).astype(int)


def _shrunk(kept: np.ndarray, drawn: np.ndarray, prior: float | np.ndarray) -> np.ndarray:
    """Rates, drawn toward their prior as if it were PRIOR_IMAGES more images."""
    return (kept + PRIOR_IMAGES * prior) / (drawn + PRIOR_IMAGES)
