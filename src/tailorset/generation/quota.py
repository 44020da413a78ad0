"""Rounds of generation: so that every unseen label gets its kept images within a budget.

A round is planned from the outcome of the rounds before it and from nothing else, so a restart plans the same again.
Each candidate is charged to the label it was chosen for. A label may spend an equal share of the budget; with no
image kept by then it is given up. What labels at quota leave unspent goes to those which are still short of it.
Which prompt is drawn within these rules is for `tailorset.generation.allocation` to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

import numpy as np

from tailorset.generation.allocation import Allocation, Ledger, Plan, Turns
from tailorset.records import Prompt

EQUAL: Mapping[str, float] = MappingProxyType({})


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

    weakness: label -> factor of its quota, 1 where a label is not named.
    Raises: ValueError if the budget gives a label no image, a label has no prompt, a prompt or weight no such label.
    """

    def __init__(
        self,
        labels: Sequence[str],
        prompts: Sequence[Prompt],
        images_per_label: int,
        max_images: int,
        allocation: Allocation | None = None,
        weakness: Mapping[str, float] = EQUAL,
    ):
        self.labels, self.max_images = tuple(labels), max_images
        self.prompts = sorted(prompts, key=lambda prompt: prompt.prompt_id)  # ids are hashes: pairs come mixed
        self.allocation = allocation or Turns()
        self._check(weakness)
        self.quotas = {label: max(1, round(images_per_label * weakness.get(label, 1))) for label in self.labels}
        self.ledger = Ledger.of(self.prompts, self.labels)
        self._charged = np.zeros(len(self.labels), dtype=int)

    def _check(self, weakness: Mapping[str, float]) -> None:
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
        if strange := sorted(set(weakness) - set(self.labels)):
            raise ValueError(f"weakness names {strange}; choices: {list(self.labels)}; leave out what is not unseen")

    @property
    def drawn(self) -> dict[str, int]:
        """label -> candidates that request it."""
        return self._by_label(self.ledger.by_label(self.ledger.drawn))

    @property
    def kept(self) -> dict[str, int]:
        """label -> those of them that showed all they were asked for."""
        return self._by_label(self.ledger.by_label(self.ledger.kept))

    @property
    def charged(self) -> dict[str, int]:
        """label -> candidates drawn on its account."""
        return self._by_label(self._charged)

    @property
    def share(self) -> int:
        """Candidates a label may have drawn for it before the others had theirs."""
        return self.max_images // len(self.labels)

    @property
    def left(self) -> int:
        """Candidates the budget still allows."""
        return self.max_images - int(self._charged.sum())

    @property
    def given_up(self) -> tuple[str, ...]:
        """Labels that spent their share without one kept image."""
        kept, charged = self.kept, self.charged
        return tuple(label for label in self.labels if not kept[label] and charged[label] >= self.share)

    @property
    def under_quota(self) -> tuple[str, ...]:
        return tuple(label for label, count in self.kept.items() if count < self.quotas[label])

    def plan_round(self) -> list[Draw]:
        """The next round, in the order of the allocation; [] when all is over."""
        plan = self._plan()
        draws = []
        for prompt, payer in islice(self.allocation.choices(plan), self._round_images()):
            draws.append(Draw(self.prompts[prompt], int(plan.images[prompt]) - 1, self.labels[payer]))
        return draws

    def record(self, draws: Sequence[Draw], passed: Iterable[bool]) -> None:
        """Count a finished round; passed: one flag a draw, true where the image shows every requested label."""
        position = {prompt.prompt_id: i for i, prompt in enumerate(self.prompts)}
        for draw, shown in zip(draws, passed, strict=True):
            self._charged[self.labels.index(draw.charged_to)] += 1
            self.ledger.drawn[position[draw.prompt.prompt_id]] += 1
            self.ledger.kept[position[draw.prompt.prompt_id]] += bool(shown)

    def _plan(self) -> Plan:
        """An empty round. Its targets are the quotas and about one standard deviation of what is missing, so that few
        rounds come after; prompts that ask for a given-up label too are out of use."""
        kept, quota = self.ledger.by_label(self.ledger.kept), np.array(list(self.quotas.values()))
        hopeless = np.isin(self.labels, self.given_up)
        usable = np.logical_not(self.ledger.wants[:, hopeless].any(axis=1))
        may_draw = self.allocation.may_draw(self.ledger, quota, usable)
        target = np.where(kept < quota, quota + np.sqrt(np.maximum(quota - kept, 0)), 0)
        limit = self._limits((kept < quota) & self.ledger.wants[may_draw].any(0))
        return Plan(
            self.ledger,
            usable,
            quota,
            target,
            kept.astype(float),
            self._charged.copy(),
            limit,
            self.ledger.drawn.copy(),
        )

    def _limits(self, active: np.ndarray) -> np.ndarray:
        """(U,) candidates that `active` labels may come to: their share, later an equal part of the round."""
        within = active & (self._charged < self.share)
        if within.any() or not active.any():
            return np.where(within, self.share, 0)
        return np.where(active, self._charged + max(1, self._round_images() // int(active.sum())), 0)

    def _round_images(self) -> int:
        return min(self.left, self.allocation.round_images or self.left)

    def _by_label(self, counts: np.ndarray) -> dict[str, int]:
        return dict(zip(self.labels, counts.tolist(), strict=True))
