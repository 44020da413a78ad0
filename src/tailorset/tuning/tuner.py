"""Tune a generator's text encoder until CLIP recognises the requested labels in its images.

Shapes: B images of a batch, N images, L labels that are compared.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tailorset.clip.losses import asymmetric_loss
from tailorset.clip.scorer import ACCEPTED_ABOVE, SCORED_AT_ONCE, LabelScorer, weakest_requested
from tailorset.compute import processes
from tailorset.compute.memory import ShrinkingBatches
from tailorset.generators import TunableGenerator
from tailorset.records import LabelSpace, Prompt
from tailorset.seeding import numpy_rng, sample_seed
from tailorset.tuning.settings import TuneTextEncoder

MAX_SKIPPED_IN_A_ROW = 10
MAX_ZERO_IN_A_ROW = 20
NORM_WINDOW = 20  # updates, up to the present one, whose median gradient norm is the unit of its norm
TUNING_MEMORY_REMEDY = "lower generator.image_px or backprop_steps, or set generator.dtype: bfloat16"


class Update(NamedTuple):
    """Record of one update.

    acceptance: share of the batch's images that the discriminator accepts before the update; skipped: the gradient was
    not finite, so the text encoder stayed as it was.
    """

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
        self,
        generator: TunableGenerator,
        discriminator: LabelScorer,
        prompts: Sequence[Prompt],
        config: TuneTextEncoder,
        seed: int,
    ) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self.prompts = prompts
        self.config = config
        self.seed = seed
        trainable = [weight for weight in generator.text_encoders.parameters() if weight.requires_grad]
        if not trainable or not prompts:
            raise ValueError(
                f"{len(trainable)} trainable weights, {len(prompts)} prompts: call generator.add_adapter first and"
                " give at least one prompt"
            )
        self.adapter = nn.ParameterList(trainable)
        self.optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
        checkpointing = generator.enable_gradient_checkpointing
        self.batches = ShrinkingBatches(config.batch_size, "tuning", TUNING_MEMORY_REMEDY, checkpointing)

    def updates(self, history: Sequence[Update] = ()) -> Iterator[Update]:
        """Yield a record after each update, continuing after those in `history`.

        To resume, restore `adapter` and `optimizer` first: an update depends on them, its number and the seed only.

        Raises: ValueError when 10 updates in a row had a gradient that is not finite, or 20 one of zero.
        """
        done = list(history)
        norms = deque((record.grad_norm for record in done if not record.skipped), maxlen=NORM_WINDOW)
        for update in range(len(done), self.config.num_updates):
            done.append(self._update(update, norms))
            yield done[-1]
            _check_gradients(done)

    @torch.no_grad()
    def held_out_loss(self, images: Tensor, prompts: Sequence[Prompt]) -> float:
        """Return the mean loss of images (N, 3, H, W) drawn for held-out prompts."""
        batches = ShrinkingBatches(SCORED_AT_ONCE, "scoring", TUNING_MEMORY_REMEDY)
        parts = batches.over(
            len(prompts), lambda part: self._assess(images[part], prompts[part])[0] * len(prompts[part]) / len(prompts)
        )
        return float(torch.stack([part for _, part in parts]).sum())

    def _update(self, update: int, norms: deque[float]) -> Update:
        loss, acceptance, *gradients = self._means(update)
        for weight, gradient in zip(self.adapter, gradients, strict=True):
            weight.grad = gradient
        norm = float(nn.utils.get_total_norm(gradients))
        finite = math.isfinite(norm)
        if finite:
            norms.append(norm)
            self._rescale(norm, median(norms))
            self.optimizer.step()
        self.optimizer.zero_grad()
        return Update(update, float(loss), float(acceptance), norm, skipped=not finite)

    def _means(self, update: int) -> list[Tensor]:
        """Return the update's mean loss, acceptance and gradient of each weight; all processes share its samples."""
        prompts, seeds = self._batch(update)
        stop_after = self._stop_after(update)
        own, weight = processes.share(len(prompts))
        prompts, seeds = prompts[own], seeds[own]
        parts = self.batches.over(len(prompts), lambda part: self._share_of(prompts[part], seeds[part], stop_after))
        shares = zip(*(share for _, share in parts), strict=True)
        means = [weight * torch.stack(tensors).sum(0) for tensors in shares]
        processes.all_reduce(means)
        return means

    def _share_of(self, prompts: Sequence[Prompt], seeds: list[int], stop_after: int | None) -> list[Tensor]:
        """Return what some samples add to each of their update's means.

        No `backward`: if memory runs out half-way, nothing must have been added to the weights' gradients.
        """
        share, steps = len(prompts) / self.config.batch_size, self.config.num_inference_steps
        with_gradient = min(self.config.backprop_steps, stop_after or steps)
        images = self.generator.sample([prompt.text for prompt in prompts], seeds, steps, with_gradient, stop_after)
        loss, weakest = self._assess(images, prompts)
        # Zeros for matrices that images do not depend on: the last layer of SDXL's first text encoder is not read.
        gradients = torch.autograd.grad(loss, list(self.adapter), materialize_grads=True)
        accepted = (weakest > ACCEPTED_ABOVE).float().mean()
        return [share * loss.detach(), share * accepted, *(share * gradient.contiguous() for gradient in gradients)]

    def _assess(self, images: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        """Return the mean loss of images (B, 3, H, W), and (B,) the lowest probability of a requested label."""
        config, requested = self.config, self.discriminator.requested(prompts)
        probabilities = self.discriminator.probabilities(images, prompts)
        loss = asymmetric_loss(probabilities, requested, config.gamma_neg, config.gamma_pos, config.clip)
        return loss, weakest_requested(probabilities.detach(), requested)

    def _rescale(self, norm: float, unit: float) -> None:
        """Scale gradients to units of the usual norm, and clip them there.

        A gradient through all steps is some 20 times longer than one through the last step, and its length varies
        more: a fixed bound would clip every update of the one and none of the other.
        """
        factor = min(1 / unit, self.config.max_grad_norm / norm) if norm and unit else 1.0
        for weight in self.adapter:
            weight.grad *= factor

    def _batch(self, update: int) -> tuple[list[Prompt], list[int]]:
        """Return the prompts and image seeds of one update, drawn from its number."""
        size = self.config.batch_size
        rng = numpy_rng(self.seed, "tuning prompts", update)
        chosen = rng.choice(len(self.prompts), size, replace=size > len(self.prompts))
        return [self.prompts[i] for i in chosen], [sample_seed(self.seed, "tuning", update, i) for i in range(size)]

    def _stop_after(self, update: int) -> int | None:
        """Return the number of sampling steps of an update, drawn from its number; None = all."""
        if self.config.stop_after is None:
            return None
        least, most = self.config.stop_after
        return int(numpy_rng(self.seed, "tuning steps", update).integers(least, most + 1))


def new_tuner(
    generator: TunableGenerator,
    discriminator: LabelScorer,
    prompts: Sequence[Prompt],
    config: TuneTextEncoder,
    label_space: LabelSpace,
    seed: int,
) -> Tuner:
    """Return a tuner with a new adapter and the labels that `config` compares."""
    generator.add_adapter(config.lora_rank, config.lora_alpha, seed)
    if config.gradient_checkpointing:
        generator.enable_gradient_checkpointing()
    labels = label_space.names if config.compare_with == "all" else label_space.unseen
    return Tuner(generator, discriminator.against(labels), prompts, config, seed)


def _check_gradients(history: Sequence[Update]) -> None:
    """Raise ValueError if too many updates in a row were skipped or had a gradient of zero."""
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
    """Return the number of consecutive records at the end for which `applies` is true."""
    return len(list(takewhile(applies, reversed(history))))
