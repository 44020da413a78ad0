"""Tune a generator's text encoder until CLIP recognises the requested labels in its images.

Letters: B images of a batch, L labels that are compared.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import median
from typing import Any, NamedTuple, Protocol, Self

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from tailorset.clip.losses import asymmetric_loss
from tailorset.clip.scorer import ACCEPTED_ABOVE, Scorer, weakest_requested
from tailorset.compute import processes
from tailorset.compute.memory import ShrinkingBatches
from tailorset.records import LabelSpace, Prompt
from tailorset.seeding import numpy_rng, sample_seed

MAX_SKIPPED_IN_A_ROW = 10
MAX_ZERO_IN_A_ROW = 20
NORM_WINDOW = 20  # updates whose median gradient norm is the unit of the next one's
IMAGES_PER_PROMPT = 4  # of a held-out prompt before tuning, after it, and whenever early stop looks; each has its seed
REMEDY = "lower generator.image_px or backprop_steps, or set generator.dtype: bfloat16"


class Generator(Protocol):
    """The part of a generator plug-in that this module calls."""

    text_encoder: nn.Module

    def sample(
        self,
        prompts: list[str],
        seeds: list[int],
        num_inference_steps: int,
        backprop_steps: int = 0,
        stop_after: int | None = None,
    ) -> Tensor: ...

    def add_adapter(self, rank: int, alpha: float, seed: int = 0) -> None: ...

    def enable_gradient_checkpointing(self) -> None: ...


@dataclass(frozen=True)
class Settings:
    """How to tune; `clip` is the margin of the asymmetric loss, backprop_steps the K of the sampling loop, or all.

    stop_after: (least, most) sampling steps that an update takes, drawn anew for each; None = all.
    max_grad_norm: in units of the median gradient norm of the last updates, so that it means the same for every K.
    """

    num_updates: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    max_grad_norm: float
    num_inference_steps: int
    backprop_steps: int
    stop_after: tuple[int, int] | None = None
    gamma_neg: float = 4.0
    gamma_pos: float = 0.0
    clip: float = 0.05

    @classmethod
    def of(cls, block: BaseModel, **others: Any) -> Self:
        """From the params block of the same keys, with `others` in place of its own."""
        return cls(**block.model_dump(include=set(cls.__dataclass_fields__)) | others)


class Update(NamedTuple):
    """What one update did. acceptance: share of the batch's images the discriminator recognises before the update;
    skipped: its gradient was not finite, so the text encoder stayed as it was."""

    update: int
    loss: float
    acceptance: float
    grad_norm: float
    skipped: bool


class Tuner:
    """The text encoder's adapter with its optimiser; `updates` is the loop.

    Raises: ValueError if the generator has no trainable adapter.
    Source: Zhang et al. 2024, sec. 3.2; Clark et al. 2024 for backprop_steps < num_inference_steps.
    Deviation: LoRA matrices instead of all weights, batches instead of single prompts.
    """

    def __init__(
        self, generator: Generator, discriminator: Scorer, prompts: Sequence[Prompt], settings: Settings, seed: int
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.prompts, self.settings, self.seed = prompts, settings, seed
        trainable = [weight for weight in generator.text_encoder.parameters() if weight.requires_grad]
        if not trainable or not prompts:
            raise ValueError(
                f"{len(trainable)} trainable weights, {len(prompts)} prompts: call generator.add_adapter first and"
                " give at least one prompt"
            )
        self.adapter = nn.ParameterList(trainable)
        self.optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.batches = ShrinkingBatches(settings.batch_size, "tuning", REMEDY, generator.enable_gradient_checkpointing)

    def updates(self, history: Sequence[Update] = ()) -> Iterator[Update]:
        """Yield a record after each update, continuing after those in `history`.

        To resume, restore `adapter` and `optimizer` first: an update depends on them, its number and the seed only.

        Raises: ValueError when 10 updates in a row had a gradient that is not finite, or 20 one of zero.
        """
        done = list(history)
        norms = deque((record.grad_norm for record in done if not record.skipped), maxlen=NORM_WINDOW)
        for update in range(len(done), self.settings.num_updates):
            done.append(self._update(update, norms))
            yield done[-1]
            _check_gradients(done)

    @torch.no_grad()
    def held_out_loss(self, images: Tensor, prompts: Sequence[Prompt], batch_size: int = 64) -> float:
        """The mean loss of finished images (N, 3, H, W) of other prompts than those it tunes on."""
        batches = ShrinkingBatches(batch_size, "scoring", REMEDY)
        parts = batches.over(
            len(prompts), lambda part: self._assess(images[part], prompts[part])[0] * len(prompts[part]) / len(prompts)
        )
        return float(torch.stack([part for _, part in parts]).sum())

    def _update(self, update: int, norms: deque[float]) -> Update:
        loss, acceptance, *gradient = self._means(update).split([1, 1, *(weight.numel() for weight in self.adapter)])
        for weight, values in zip(self.adapter, gradient, strict=True):
            weight.grad = values.view_as(weight)
        norm = float(nn.utils.get_total_norm(gradient))
        finite = math.isfinite(norm)
        if finite:
            norms.append(norm)
            self._rescale(norm, median(norms))
            self.optimizer.step()
        self.optimizer.zero_grad()
        return Update(update, float(loss), float(acceptance), norm, skipped=not finite)

    def _means(self, update: int) -> Tensor:
        """Loss, acceptance and gradient over the update's batch in one row; its samples are shared by all processes."""
        prompts, seeds = self._batch(update)
        stop_after = self._stop_after(update)
        own, weight = processes.share(len(prompts))
        prompts, seeds = prompts[own], seeds[own]
        parts = self.batches.over(len(prompts), lambda part: self._share_of(prompts[part], seeds[part], stop_after))
        means = weight * torch.stack([part for _, part in parts]).sum(0)
        processes.add_up([means])
        return means

    def _share_of(self, prompts: Sequence[Prompt], seeds: list[int], stop_after: int | None) -> Tensor:
        """What some samples add to the means of their update.

        No `backward`: where memory runs out half-way, nothing must have been added to the weights' gradients.
        """
        settings, share = self.settings, len(prompts) / self.settings.batch_size
        texts, steps = [prompt.text for prompt in prompts], settings.num_inference_steps
        with_gradient = min(settings.backprop_steps, stop_after or steps)
        images = self.generator.sample(texts, seeds, steps, with_gradient, stop_after)
        loss, weakest = self._assess(images, prompts)
        gradient = torch.autograd.grad(loss, list(self.adapter))
        accepted = (weakest > ACCEPTED_ABOVE).float().mean()
        return share * torch.cat([loss.detach().view(1), accepted.view(1), *(part.flatten() for part in gradient)])

    def _assess(self, images: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        """The mean loss of images (B, 3, H, W), and (B,) the lowest probability of a requested label."""
        settings, targets = self.settings, self.discriminator.requested(prompts)
        probabilities = self.discriminator.probabilities(images, prompts)
        loss = asymmetric_loss(probabilities, targets, settings.gamma_neg, settings.gamma_pos, settings.clip)
        return loss, weakest_requested(probabilities.detach(), targets)

    def _rescale(self, norm: float, unit: float) -> None:
        """Gradients in units of the usual norm, clipped there.

        A gradient through all steps is some 20 times longer than one through the last step, and its length varies
        more: a fixed bound would clip every update of the one and none of the other.
        """
        factor = min(1 / unit, self.settings.max_grad_norm / norm) if norm and unit else 1.0
        for weight in self.adapter:
            weight.grad *= factor

    def _batch(self, update: int) -> tuple[list[Prompt], list[int]]:
        """The prompts and image seeds of one update, drawn from its number."""
        size = self.settings.batch_size
        rng = numpy_rng(self.seed, "tuning prompts", update)
        chosen = rng.choice(len(self.prompts), size, replace=size > len(self.prompts))
        return [self.prompts[i] for i in chosen], [sample_seed(self.seed, "tuning", update, i) for i in range(size)]

    def _stop_after(self, update: int) -> int | None:
        """How many sampling steps an update takes, drawn from its number."""
        if self.settings.stop_after is None:
            return None
        least, most = self.settings.stop_after
        return int(numpy_rng(self.seed, "tuning steps", update).integers(least, most + 1))


def new_tuner(
    generator: Generator,
    discriminator: Scorer,
    prompts: Sequence[Prompt],
    block: Any,
    label_space: LabelSpace,
    seed: int,
    **others: Any,
) -> Tuner:
    """A tuner with a new adapter, as the params block tune_text_encoder has it; `others` replace settings of its."""
    generator.add_adapter(block.lora_rank, block.lora_alpha, seed)
    if block.gradient_checkpointing:
        generator.enable_gradient_checkpointing()
    labels = label_space.names if block.compare_with == "all" else label_space.unseen
    return Tuner(generator, discriminator.against(labels), prompts, Settings.of(block, **others), seed)


def split_prompts(prompts: Sequence[Prompt], num_held_out: int, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Split into (tuning, held out), the held-out ones spread evenly over the requested label sets.

    A tuning prompt whose text is held out as well is dropped.

    Raises: ValueError if no prompt would be left to tune on.
    """
    if not 0 < num_held_out < len(prompts):
        raise ValueError(
            f"held_out_prompts is {num_held_out} of {len(prompts)} prompts: choose 1 to {len(prompts) - 1}, or write"
            " more prompts (write_prompts.prompts_per_pair)"
        )
    shuffled = [prompts[i] for i in numpy_rng(seed, "held out").permutation(len(prompts))]
    met: dict[tuple[str, ...], int] = {}
    turns = []
    for prompt in shuffled:
        met[prompt.labels] = met.get(prompt.labels, 0) + 1
        turns.append(met[prompt.labels])
    order = sorted(range(len(shuffled)), key=turns.__getitem__)  # stable: first of each label set, then second ...
    held_out = [shuffled[i] for i in order[:num_held_out]]
    texts = {prompt.text for prompt in held_out}
    return [prompt for prompt in prompts if prompt.text not in texts], held_out


def draw(
    generator: Generator,
    prompts: Sequence[Prompt],
    seed: int,
    num_inference_steps: int,
    batches: ShrinkingBatches,
    purpose: str = "held out",
) -> Iterator[Tensor]:
    """Yield batches of images (B, 3, H, W) in [0, 1] of the prompts in order; a prompt that repeats gets new seeds.

    purpose: another one gives other images of the same prompts.
    """
    met: dict[str, int] = {}
    seeds = []
    for prompt in prompts:
        seeds.append(sample_seed(seed, purpose, prompt.prompt_id, met.get(prompt.prompt_id, 0)))
        met[prompt.prompt_id] = met.get(prompt.prompt_id, 0) + 1

    def sample(part: slice) -> Tensor:
        return generator.sample([prompt.text for prompt in prompts[part]], seeds[part], num_inference_steps)

    for _, images in batches.over(len(prompts), sample):
        yield images


def _check_gradients(history: Sequence[Update]) -> None:
    """Raise ValueError when updates have come to nothing for too long."""
    skipped = _trailing(history, lambda record: record.skipped)
    if skipped >= MAX_SKIPPED_IN_A_ROW:
        raise ValueError(
            f"the last {skipped} updates had a gradient that is not finite (loss {history[-1].loss}): lower"
            " tune_text_encoder.learning_rate or backprop_steps, or set generator.dtype to float32"
        )
    without = _trailing(history, lambda record: record.grad_norm == 0)
    if without >= MAX_ZERO_IN_A_ROW:
        raise ValueError(
            f"the last {without} updates had a gradient of zero (loss {history[-1].loss}): the images do not depend on"
            " their prompts any more; lower tune_text_encoder.learning_rate"
        )


def _trailing(history: Sequence[Update], applies: Callable[[Update], bool]) -> int:
    """How many of the last records something applies to, without a gap."""
    return len(list(takewhile(applies, reversed(history))))
