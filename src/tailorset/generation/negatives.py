"""Images of seen labels, drawn in the same way as those of unseen ones, in which every unseen label is absent.

The candidates for the unseen labels show nothing else, and photos are not annotated for these labels. So without
negatives, the classifier is never told that an unseen label is absent where an object of a seen label is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tailorset.generation.quota import Draw
from tailorset.generation.shard_store import ShardStore
from tailorset.generation.studio import PlannedShard
from tailorset.records import LabelSpace, Prompt
from tailorset.records.frames import frames_of
from tailorset.seeding import numpy_rng, pick


class Negatives(NamedTuple):
    """Shards to draw, and the store that keeps them."""

    plans: Sequence[PlannedShard]
    store: ShardStore


def negative_draws(prompts: Sequence[Prompt], label_space: LabelSpace, number: int, seed: int) -> list[Draw]:
    """Return draws of seen labels, which take turns, by written prompts with these labels in the place of theirs.

    Left out are what may show an unseen label: seen labels with an unseen parent or child, and prompts that also name
    one of these or an unseen label. number: images, each with a prompt of its own; they are the same whatever the
    number.

    Raises:
        ValueError: there are fewer seen labels than a prompt needs, or no prompt names each of its labels once.
    """
    if not number:
        return []
    seen = [name for name in label_space.seen if not label_space.unseen_kin[name]]
    usable = [frame for frame in frames_of(prompts, label_space) if not label_space.may_show(frame.text)]
    if not (frames := [frame for frame in usable if frame.num_labels <= len(seen)]):
        raise ValueError(
            f"generate_images.negative_images is {number}, and none of {len(prompts)} prompts can be written for"
            f" {len(seen)} seen labels without an unseen parent or child: set it to 0, or write other prompts"
        )
    draws = []
    for index in range(number):
        rng = numpy_rng(seed, "negative", str(index))
        frame, first = pick(rng, frames), seen[index % len(seen)]
        others = rng.permutation([name for name in seen if name != first]).tolist()
        labels = rng.permutation([first, *others[: frame.num_labels - 1]]).tolist()
        text = frame.fill(labels, label_space)
        prompt = Prompt(prompt_id=f"negative-{index:06d}", text=text, labels=labels, origin="template", attempt=0)
        draws.append(Draw(prompt, 0, first))
    return draws


def negative_shards(draws: Sequence[Draw], shard_size: int) -> list[PlannedShard]:
    """Return the shards in which the draws are stored."""
    parts = [draws[start : start + shard_size] for start in range(0, len(draws), shard_size)]
    return [PlannedShard(f"negative-{number:05d}.tar", part) for number, part in enumerate(parts)]
