"""Early stop of tuning, choice of the adapter, and the gauge of reward hacking, all from held-out evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Evaluation(NamedTuple):
    """Scores of held-out images after `update` updates; 0 is the untuned text encoder.

    loss: what tuning minimises; discriminator, judge: the share that each CLIP accepts.
    """

    update: int
    loss: float
    discriminator: float
    judge: float


def best_evaluation(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return the evaluation of the lowest loss, the earliest of equals, if tuning did no harm by then.

    Only evaluations count at which the discriminator accepts at least as many images as of the untuned text encoder,
    the first evaluation: a lower loss can come with fewer images that pass the filter. As a measure of progress,
    shares of accepted images are too coarse; the judge only measures. A NaN loss, for which a single NaN image is
    enough in float16, counts as the highest.
    """
    harmless = [e for e in evaluations if e.discriminator >= evaluations[0].discriminator]
    return min(harmless, key=lambda evaluation: (math.isnan(evaluation.loss), evaluation.loss))


def is_over(evaluations: Sequence[Evaluation], patience: int) -> bool:
    """Check that the last `patience` evaluations have all failed to be the best."""
    return bool(evaluations) and len(evaluations) - 1 - evaluations.index(best_evaluation(evaluations)) >= patience


def reward_hacking(before: Evaluation, after: Evaluation) -> float:
    """Return the discriminator's gain minus the judge's gain, in [-2, 2].

    About 0 if both accept more images; the discriminator's gain itself if the judge accepts no more than before.
    """
    return (after.discriminator - before.discriminator) - (after.judge - before.judge)
