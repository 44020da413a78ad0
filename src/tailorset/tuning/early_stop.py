"""When to stop tuning, which adapter to keep, and whether the gain is real: all three from held-out evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Evaluation(NamedTuple):
    """Held-out images after `update` updates; 0 is the untuned text encoder.

    loss: what tuning minimises; discriminator, judge: the share that each CLIP accepts.
    """

    update: int
    loss: float
    discriminator: float
    judge: float


def best(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The one of the lowest loss, the earliest of equals. Shares of accepted images are too coarse, and the judge
    only measures."""
    return min(evaluations, key=lambda evaluation: evaluation.loss)


def is_over(evaluations: Sequence[Evaluation], patience: int) -> bool:
    """Whether the last `patience` evaluations have all failed to be the best."""
    return bool(evaluations) and len(evaluations) - 1 - evaluations.index(best(evaluations)) >= patience


def reward_hacking(before: Evaluation, after: Evaluation) -> float:
    """Discriminator's gain minus judge's gain, in [-2, 2].

    About 0 when images got better, as far as the judge can tell; the discriminator's gain itself when only it is
    pleased.
    """
    return (after.discriminator - before.discriminator) - (after.judge - before.judge)
