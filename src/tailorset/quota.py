"""Rounds of generation: which prompts to draw next, so that every unseen label gets its kept images within a budget.

A round is planned from the outcome of the rounds before it and from nothing else, so a restart plans the same again.
Each candidate is charged to the label it was chosen for. A label may spend an equal share of the budget; with no
image kept by then it is given up. What labels at quota leave unspent goes to those which are still short of it.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tailorset.records import Prompt


@dataclass(frozen=True)
class Draw:
    """One candidate to draw: the `index`-th image of a prompt, paid for by the label `charged_to`."""

    prompt: Prompt
    index: int
    charged_to: str

    @property
    def image_id(self) -> str:
        return f"{self.prompt.prompt_id}-{self.index:04d}"


class QuotaPlanner:
    """Plans rounds of draws over `labels`; `record` tells it what became of a round.

    Raises: ValueError where the budget gives a label no image, a label has no prompt or a prompt an unknown label.
    """

    def __init__(self, labels: Sequence[str], prompts: Sequence[Prompt], images_per_label: int, max_images: int):
        self.labels, self.quota, self.max_images = tuple(labels), images_per_label, max_images
        self.prompts = sorted(prompts, key=lambda prompt: prompt.prompt_id)  # ids are hashes: pairs come mixed
        self.drawn: Counter[str] = Counter()  # candidates that request a label
        self.kept: Counter[str] = Counter()  # those of them that showed all they were asked for
        self.charged: Counter[str] = Counter()
        self._images_of: Counter[str] = Counter()  # prompt_id -> images planned so far
        self._check()

    def _check(self) -> None:
        if self.max_images < len(self.labels):
            raise ValueError(
                f"max_images={self.max_images} for {len(self.labels)} unseen labels; allow at least one image a label"
            )
        if repeated := [key for key, n in Counter(prompt.prompt_id for prompt in self.prompts).items() if n > 1]:
            raise ValueError(f"prompt_id {repeated[0]!r} occurs twice; write the prompts again")
        named = {label for prompt in self.prompts for label in prompt.labels}
        if unknown := sorted(named - set(self.labels)):
            raise ValueError(f"prompts request {unknown}; choices: {list(self.labels)}; write the prompts again")
        if missing := [label for label in self.labels if label not in named]:
            raise ValueError(f"no prompt requests {missing}; write the prompts again with these labels")

    @property
    def share(self) -> int:
        """Candidates a label may have drawn for it before the others had theirs."""
        return self.max_images // len(self.labels)

    @property
    def given_up(self) -> tuple[str, ...]:
        """Labels that spent their share without one kept image."""
        return tuple(label for label in self.labels if not self.kept[label] and self.charged[label] >= self.share)

    @property
    def under_quota(self) -> tuple[str, ...]:
        return tuple(label for label in self.labels if self.kept[label] < self.quota)

    def plan_round(self) -> list[Draw]:
        """The next round: labels under quota take turns, each with its least drawn prompt; [] when all is over."""
        pools = self._pools()
        allowance = self._allowance(pools)
        target = {label: self._target(label) for label in allowance}
        expected = {label: float(self.kept[label]) for label in self.labels}
        rate = {label: (self.kept[label] + 1) / (self.drawn[label] + 1) for label in self.labels}
        left = self.max_images - self.charged.total()
        turns = deque(allowance)
        draws: list[Draw] = []
        while turns and len(draws) < left:
            label = turns.popleft()
            if expected[label] >= target[label] or not allowance[label]:
                continue
            prompt = self._least_drawn(pools[label])
            draws.append(Draw(prompt, self._images_of[prompt.prompt_id], label))
            self._images_of[prompt.prompt_id] += 1
            allowance[label] -= 1
            for requested in prompt.labels:
                expected[requested] += rate[requested]
            turns.append(label)
        return draws

    def record(self, draws: Sequence[Draw], passed: Iterable[bool]) -> None:
        """Count a finished round; passed: one flag a draw, true where the image shows every requested label."""
        for draw, shown in zip(draws, passed, strict=True):
            self.charged[draw.charged_to] += 1
            self.drawn.update(draw.prompt.labels)
            if shown:
                self.kept.update(draw.prompt.labels)

    def _pools(self) -> dict[str, list[tuple[int, int]]]:
        """label -> heap of (images so far, prompt's position), without prompts that ask for a given-up label too."""
        hopeless = set(self.given_up)
        pools: dict[str, list[tuple[int, int]]] = {label: [] for label in self.labels}
        for position, prompt in enumerate(self.prompts):
            if hopeless.isdisjoint(prompt.labels):
                for label in prompt.labels:
                    pools[label].append((self._images_of[prompt.prompt_id], position))
        for pool in pools.values():
            heapq.heapify(pool)
        return pools

    def _least_drawn(self, pool: list[tuple[int, int]]) -> Prompt:
        """The prompt with the fewest images. Counts only grow, so stale entries are renewed as they surface."""
        while pool[0][0] != (count := self._images_of[self.prompts[pool[0][1]].prompt_id]):
            heapq.heapreplace(pool, (count, pool[0][1]))
        return self.prompts[pool[0][1]]

    def _allowance(self, pools: dict[str, list[tuple[int, int]]]) -> dict[str, int]:
        """label -> candidates it may draw in this round: what is left of its share, later an equal part of the rest."""
        active = [label for label in self.under_quota if pools[label]]
        within = {label: self.share - self.charged[label] for label in active if self.charged[label] < self.share}
        if within or not active:
            return within
        rest = self.max_images - self.charged.total()
        return dict.fromkeys(active, max(1, rest // len(active)))

    def _target(self, label: str) -> float:
        """The quota and about one standard deviation of what is missing, so that few rounds come after."""
        missing = self.quota - self.kept[label]
        return self.quota + math.sqrt(missing)
