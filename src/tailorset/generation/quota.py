"""Rounds of generation: each unseen label gets its quota of kept images within a budget of candidates.

A round is planned from the outcome of the rounds before it and from nothing else, so a restart plans the same again.
Each candidate is charged to the label it was chosen for. A label may spend an equal share of the budget; it is given up
if no image was kept by then. The budget that labels at quota leave unspent goes to those below it.
Within these rules an allocator (`tailorset.generation.allocation`) chooses the prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

import numpy as np

from tailorset.generation.allocation import Allocator, DrawCounts, RoundPlan, Turns, build
from tailorset.generation.settings import NO_QUOTA, GenerateImages
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
    """Plans rounds of draws over `labels`; `record` counts the outcome of a round.

    weakness: label -> factor of its quota, 1 for a label that is not named.
    Raises: ValueError if the budget gives a label no image, a label has no prompt, or a prompt or a weakness names a
    label that is not among `labels`.
    """

    def __init__(
        self,
        labels: Sequence[str],
        prompts: Sequence[Prompt],
        images_per_label: int,
        max_images: int,
        allocator: Allocator | None = None,
        weakness: Mapping[str, float] = MappingProxyType({}),
    ):
        self.labels = tuple(labels)
        self.max_images = max_images
        self.prompts = sorted(prompts, key=lambda prompt: prompt.prompt_id)  # ids are hashes: pairs come mixed
        self.allocator = allocator or Turns()
        self._check(weakness)
        self.quotas = {label: max(1, round(images_per_label * weakness.get(label, 1))) for label in self.labels}
        self.counts = DrawCounts.of(self.prompts, self.labels)
        self._charged = np.zeros(len(self.labels), dtype=int)

    @classmethod
    def of(cls, config: GenerateImages, labels: Sequence[str], prompts: Sequence[Prompt], seed: int) -> QuotaPlanner:
        """Return the planner of the stage's settings."""
        allocator = build(config.allocation, seed)
        return cls(labels, prompts, config.images_per_label, config.max_images, allocator, config.weakness)

    def _check(self, weakness: Mapping[str, float]) -> None:
        if self.max_images < len(self.labels):
            raise ValueError(
                f"max_images={self.max_images} for {len(self.labels)} unseen labels; allow at least one image per label"
            )
        if repeated := [key for key, n in Counter(prompt.prompt_id for prompt in self.prompts).items() if n > 1]:
            raise ValueError(f"prompt_id {repeated[0]!r} occurs twice; write the prompts again")
        named = {label for prompt in self.prompts for label in prompt.labels}
        if unknown := sorted(named - set(self.labels)):
            raise ValueError(f"prompts request {unknown}; choices: {list(self.labels)}; write the prompts again")
        needed = [label for label in self.labels if weakness.get(label, 1) > NO_QUOTA]
        if missing := [label for label in needed if label not in named]:
            raise ValueError(f"no prompt requests {missing}; write the prompts again with these labels")
        if strange := sorted(set(weakness) - set(self.labels)):
            raise ValueError(f"weakness names {strange}; choices: {list(self.labels)}; remove {strange} from it")

    @property
    def drawn(self) -> dict[str, int]:
        """label -> candidates that request it."""
        return self._by_label(self.counts.by_label(self.counts.drawn))

    @property
    def kept(self) -> dict[str, int]:
        """label -> those of them that show every requested label."""
        return self._by_label(self.counts.by_label(self.counts.kept))

    @property
    def charged(self) -> dict[str, int]:
        """label -> candidates charged to it."""
        return self._by_label(self._charged)

    @property
    def share(self) -> int:
        """A label's guaranteed share of the budget, in candidates."""
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
        """Return the next round, in the order of the allocator; [] when generation is over."""
        plan = self._plan()
        draws = []
        for prompt, payer in islice(self.allocator.choices(plan), self._round_images()):
            draws.append(Draw(self.prompts[prompt], int(plan.images[prompt]) - 1, self.labels[payer]))
        return draws

    def record(self, draws: Sequence[Draw], passed: Iterable[bool]) -> None:
        """Count a finished round; passed: one flag per draw, true if the image shows every requested label."""
        position = {prompt.prompt_id: i for i, prompt in enumerate(self.prompts)}
        for draw, shown in zip(draws, passed, strict=True):
            self._charged[self.labels.index(draw.charged_to)] += 1
            self.counts.drawn[position[draw.prompt.prompt_id]] += 1
            self.counts.kept[position[draw.prompt.prompt_id]] += bool(shown)

    def _plan(self) -> RoundPlan:
        """Return an empty round.

        Its targets are the quotas plus about one standard deviation of the missing images, so that few rounds follow;
        prompts that request a given-up label are not used.
        """
        counts, quota = self.counts, np.array(list(self.quotas.values()))
        kept = counts.by_label(counts.kept)
        missing = np.maximum(quota - kept, 0)
        usable = np.logical_not(counts.requested[:, np.isin(self.labels, self.given_up)].any(axis=1))
        may_draw = self.allocator.may_draw(counts, quota, usable)
        return RoundPlan(
            counts,
            usable,
            quota,
            target=np.where(missing > 0, quota + np.sqrt(missing), 0),
            expected=kept.astype(float),
            charged=self._charged.copy(),
            limit=self._limits((missing > 0) & counts.requested[may_draw].any(axis=0)),
            images=counts.drawn.copy(),
        )

    def _limits(self, active: np.ndarray) -> np.ndarray:
        """(U,) candidates that may be charged to `active` labels: their share, later an equal part of the round."""
        within = active & (self._charged < self.share)
        if within.any() or not active.any():
            return np.where(within, self.share, 0)
        return np.where(active, self._charged + max(1, self._round_images() // int(active.sum())), 0)

    def _round_images(self) -> int:
        return min(self.left, self.allocator.round_images or self.left)

    def _by_label(self, counts: np.ndarray) -> dict[str, int]:
        return dict(zip(self.labels, counts.tolist(), strict=True))
