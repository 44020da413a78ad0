"""Held-out prompts: tuning never sees them, and images of them show what it changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tailorset.clip.scorer import LabelScorer, acceptance
from tailorset.clip.settings import Role
from tailorset.compute import processes
from tailorset.compute.memory import ShrinkingBatches
from tailorset.generators import Sampler
from tailorset.progress import Bar
from tailorset.records import Prompt
from tailorset.seeding import numpy_rng, occurrence_numbers, sample_seed
from tailorset.tuning.early_stop import Evaluation
from tailorset.tuning.tuner import TUNING_MEMORY_REMEDY, Tuner

IMAGES_PER_PROMPT = 4  # before tuning, after it, and at each evaluation; each image has its own seed
BATCH_SIZE = 64  # images without gradient, to begin with


@dataclass(frozen=True)
class HeldOut:
    """The held-out prompts with the CLIPs that score their images.

    num_inference_steps: those of generate_images, for which the text encoder is tuned.
    """

    prompts: Sequence[Prompt]
    scorers: Mapping[Role, LabelScorer]
    num_inference_steps: int
    seed: int
    batches: ShrinkingBatches = field(
        default_factory=lambda: ShrinkingBatches(BATCH_SIZE, "drawing held-out prompts", TUNING_MEMORY_REMEDY)
    )

    @property
    def shown(self) -> list[Prompt]:
        """One prompt per image."""
        return list(self.prompts) * IMAGES_PER_PROMPT

    def images(self, generator: Sampler, when: str) -> Tensor:
        """Draw (N, 3, H, W) in [0, 1] on the CPU, one image for each of `shown`; when: "before" or "after"."""
        images = []
        with Bar(total=len(self.shown), desc=f"held-out prompts, {when} tuning", unit="image") as bar:
            for batch in draw_images(generator, self.shown, self.seed, self.num_inference_steps, self.batches):
                images.append(batch)
                bar.update(len(batch))
        return torch.cat(images)

    def acceptance(self, images: Tensor, prompts: Sequence[Prompt]) -> dict[Role, float]:
        """Share of the images that each CLIP accepts."""
        return {role: acceptance(scorer, images, prompts) for role, scorer in self.scorers.items()}

    def evaluation(self, tuner: Tuner, update: int) -> Evaluation:
        """Evaluate the adapter by images other than those of the final measurement, shared by all processes."""
        own, weight = processes.share(len(self.prompts))
        shown = list(self.prompts[own]) * IMAGES_PER_PROMPT
        weight *= len(shown) / len(self.shown)
        drawn = draw_images(tuner.generator, shown, self.seed, self.num_inference_steps, self.batches, "early stop")
        images = torch.cat(list(drawn))
        device = tuner.discriminator.clip.device

        def mean(own_mean: float) -> float:
            """Mean over the images of all processes; equal ones stay equal, in whatever order they are added."""
            return round(processes.all_reduce_number(weight * own_mean, device), 5)

        loss = mean(tuner.held_out_loss(images, shown))
        accepted = {role: mean(share) for role, share in self.acceptance(images, shown).items()}
        return Evaluation(update, loss, **accepted)


def split_prompts(prompts: Sequence[Prompt], num_held_out: int, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Split into (tuning, held out), the held-out ones spread evenly over the requested label sets.

    A tuning prompt whose text is held out as well is dropped.

    Raises:
        ValueError: no prompt would be left to tune on.
    """
    if not 0 < num_held_out < len(prompts):
        raise ValueError(
            f"held_out_prompts is {num_held_out} of {len(prompts)} prompts: choose 1 to {len(prompts) - 1}, or write"
            " more prompts (write_prompts.prompts_per_pair)"
        )
    shuffled = [prompts[i] for i in numpy_rng(seed, "held out").permutation(len(prompts))]
    turns = occurrence_numbers(prompt.labels for prompt in shuffled)
    order = sorted(range(len(shuffled)), key=turns.__getitem__)  # stable: first of each label set, then second ...
    held_out = [shuffled[i] for i in order[:num_held_out]]
    texts = {prompt.text for prompt in held_out}
    tuning = [prompt for prompt in prompts if prompt.text not in texts]
    if not tuning:
        raise ValueError(f"all {len(prompts)} prompts read like one that is held out: write more of other wordings")
    return tuning, held_out


def draw_images(
    generator: Sampler,
    prompts: Sequence[Prompt],
    seed: int,
    num_inference_steps: int,
    batches: ShrinkingBatches,
    purpose: str = "held out",
) -> Iterator[Tensor]:
    """Yield batches of images (B, 3, H, W) in [0, 1], in prompt order, on the CPU: a device may not hold all of them.

    A repeated prompt gets new seeds. purpose: another one gives other images of the same prompts.
    """
    numbers = occurrence_numbers(prompt.prompt_id for prompt in prompts)
    seeds = [
        sample_seed(seed, purpose, prompt.prompt_id, number) for prompt, number in zip(prompts, numbers, strict=True)
    ]

    def sample(part: slice) -> Tensor:
        return generator.sample([prompt.text for prompt in prompts[part]], seeds[part], num_inference_steps).cpu()

    for _, images in batches.over(len(prompts), sample):
        yield images
