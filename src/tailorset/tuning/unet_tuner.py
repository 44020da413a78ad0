"""Tune a generator's UNet on annotated photos, so that labels without photos are drawn in the look of photos, too."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tailorset.compute.memory import ShrinkingBatches
from tailorset.generators import PhotoLearner
from tailorset.progress import Bar
from tailorset.seeding import numpy_rng, sample_seed
from tailorset.storage.checkpoint import load_checkpoint, save_checkpoint
from tailorset.storage.files import write_json
from tailorset.tuning.loop import HISTORY, LAST
from tailorset.tuning.photo_captions import UNET_MEMORY_REMEDY, CaptionedPhotos
from tailorset.tuning.unet_settings import TuneUnet

WARMUP_UPDATES = 20
NO_CAPTION = 0.1  # share of photos without a caption, as classifier-free guidance needs it


class UnetUpdate(NamedTuple):
    """Record of one update."""

    update: int
    loss: float


class UnetTuner:
    """The UNet's adapter with its optimiser.

    Source: Hu et al. 2022 (LoRA), Ho et al. 2020 for the loss. The layers that read the prompt stay as they are
    (`generators.parts.lora`): what a label looks like is not to be learned from photos that do not show it.
    """

    def __init__(self, generator: PhotoLearner, photos: CaptionedPhotos, config: TuneUnet, seed: int) -> None:
        self.generator, self.photos, self.config, self.seed = generator, photos, config, seed
        generator.add_adapter(config.lora_rank, config.lora_alpha, seed, "denoisers")
        trainable = [weight for weight in generator.denoisers.parameters() if weight.requires_grad]
        self.adapter = nn.ParameterList(trainable)
        self.optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=0)
        checkpointing = generator.enable_gradient_checkpointing
        self.batches = ShrinkingBatches(config.batch_size, "tuning the UNet", UNET_MEMORY_REMEDY, checkpointing)

    def updates(self, done: int = 0) -> Iterator[UnetUpdate]:
        """Yield a record after each update, from the number `done` on.

        To resume, restore `adapter` and `optimizer` first: an update depends on them, its number and the seed only.

        Raises: ValueError for a loss that is not finite.
        """
        for update in range(done, self.config.num_updates):
            yield self._update(update)

    def _update(self, update: int) -> UnetUpdate:
        places = range(self.config.batch_size)
        chosen, captions = self._batch(update)
        seeds = [sample_seed(self.seed, "unet", update, place) for place in places]

        def share(part: slice) -> tuple[float, tuple[Tensor, ...]]:
            """Return what some photos add to the mean loss and to its gradient."""
            latents = self.photos.latents[chosen[part]]
            losses = self.generator.denoising_losses(latents, captions[part], seeds[part])
            loss = losses.sum() / len(places)
            return float(loss.detach()), torch.autograd.grad(loss, list(self.adapter))

        loss = 0.0
        for _, (part_of_loss, gradient) in self.batches.over(len(places), share):
            loss += part_of_loss
            for weight, tensor in zip(self.adapter, gradient, strict=True):
                weight.grad = tensor if weight.grad is None else weight.grad + tensor
        norm = float(nn.utils.clip_grad_norm_(list(self.adapter), self.config.max_grad_norm))
        if not math.isfinite(loss + norm):
            raise ValueError(
                f"update {update} of the UNet has the loss {loss:g} and a gradient of norm {norm:g}: lower"
                " tune_unet.learning_rate, or set generator.dtype to float32"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * _rate(update, self.config.num_updates)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return UnetUpdate(update, loss)

    def _batch(self, update: int) -> tuple[list[int], list[str]]:
        """Return the numbers and captions of an update's photos, drawn from its number."""
        rng, size = numpy_rng(self.seed, "unet photos", update), self.config.batch_size
        chosen = rng.integers(len(self.photos.captions), size=size).tolist()
        without = rng.random(size) < NO_CAPTION
        return chosen, ["" if omit else self.photos.captions[i] for i, omit in zip(chosen, without, strict=True)]


def tune_unet(tuner: UnetTuner, history: list[UnetUpdate], work_dir: Path) -> Iterator[UnetUpdate]:
    """Yield each update, which also extends `history`; continue after those in it, and store checkpoints."""
    config = tuner.config
    with Bar(total=config.num_updates, initial=len(history), unit="update", is_whole=True) as bar:
        for update in tuner.updates(len(history)):
            history.append(update)
            yield update
            if len(history) % config.checkpoint_every == 0 or len(history) == config.num_updates:
                write_json(work_dir / HISTORY, {"losses": [record.loss for record in history]})
                save_checkpoint(work_dir / LAST, len(history), adapter=tuner.adapter, optimizer=tuner.optimizer)
            bar.update()
            bar.set_postfix(loss=f"{update.loss:.3f}")


def restored_unet(work_dir: Path, tuner: UnetTuner) -> list[UnetUpdate]:
    """Return the updates of an interrupted run, with its last checkpoint restored in the tuner."""
    done = load_checkpoint(work_dir / LAST, adapter=tuner.adapter, optimizer=tuner.optimizer)
    if not done:
        return []
    losses = json.loads((work_dir / HISTORY).read_text(encoding="utf-8"))["losses"]
    # The history is written before the checkpoint, so it may be longer.
    return [UnetUpdate(*record) for record in enumerate(losses[:done])]


def _rate(update: int, num_updates: int) -> float:
    """Factor of the learning rate: up over the first updates, then down as a cosine."""
    return min(1.0, (update + 1) / WARMUP_UPDATES) * (0.5 + 0.5 * math.cos(math.pi * update / num_updates))
