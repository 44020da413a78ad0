"""The training loop that all classifiers share: one pass per epoch over annotated photos and generated images.

Shapes: B images of a batch, N images, L labels, P x P pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from tailorset.clip.losses import asymmetric_loss
from tailorset.compute import processes
from tailorset.compute.memory import ShrinkingBatches, explained
from tailorset.progress import Bar
from tailorset.seeding import sample_seed, torch_generator
from tailorset.storage.image_set import ImageSet, Mixture
from tailorset.training.augment import augment
from tailorset.training.contract import AugmentConfig, SourceAware, Trainable, TrainingConfig

TRAINING_MEMORY_REMEDY = "lower train_classifier.batch_size, which changes the result and is never lowered by itself"


def learning_rate_factor(epoch: int, num_epochs: int, warmup_epochs: int) -> float:
    """Return the share of the base rate in an epoch: linear warm-up to 1, then cosine towards 0."""
    if epoch < warmup_epochs:
        return (epoch + 1) / (warmup_epochs + 1)
    progress = (epoch - warmup_epochs) / (num_epochs - warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * progress))


def train_epochs(
    classifier: Trainable,
    data: ImageSet | Mixture,
    optimizers: Mapping[str, Optimizer],
    config: TrainingConfig,
    seed: int,
    first_epoch: int = 0,
    after_step: Callable[[], None] = lambda: None,
) -> Iterator[dict[str, float]]:
    """Yield each epoch's mean loss after it, for the caller to evaluate, log and store.

    Photos and generated images are mixed in a batch, so that a normalisation sees both; targets of -1 keep photos to
    the seen columns and generated images to the unseen columns. An epoch depends on nothing but the state before it
    and the seed, so a restart from a stored epoch ends where an uninterrupted run does.

    after_step: called after each step.

    Raises:
        FloatingPointError: the loss is not finite.
        MemoryError: a batch does not fit.
    """
    base_rates = {name: optimizer.defaults["lr"] for name, optimizer in optimizers.items()}
    num_steps = len(batch_indices(len(data), config.batch_size, seed, 0))
    total, done = config.num_epochs * num_steps, first_epoch * num_steps
    with Bar(total=total, initial=done, desc="training", unit="step", is_whole=True) as bar:

        def step_is_over() -> None:
            after_step()
            bar.update()

        for epoch in range(first_epoch, config.num_epochs):
            factor = learning_rate_factor(epoch, config.num_epochs, config.warmup_epochs)
            for name, optimizer in optimizers.items():
                for group in optimizer.param_groups:
                    group["lr"] = base_rates[name] * factor
            with explained("training", TRAINING_MEMORY_REMEDY):
                loss = _train_epoch(classifier, data, optimizers, config, seed, epoch, step_is_over)
            yield {"loss": loss, **{f"learning_rate/{name}": rate * factor for name, rate in base_rates.items()}}


def _train_epoch(
    classifier: Trainable,
    data: ImageSet | Mixture,
    optimizers: Mapping[str, Optimizer],
    config: TrainingConfig,
    seed: int,
    epoch: int,
    after_step: Callable[[], None],
) -> float:
    classifier.train()
    groups = [group for optimizer in optimizers.values() for group in optimizer.param_groups]
    weights = [weight for group in groups for weight in group["params"]]
    losses = []
    batches = batch_indices(len(data), config.batch_size, seed, epoch)
    for step, batch in enumerate(batches):
        columns = label_columns(data.targets.shape[1], config.labels_per_step, seed, epoch, step)
        loss = _batch_loss(classifier, data, batch, columns, config, seed, epoch, weights[0].device)
        if not loss.isfinite():
            raise FloatingPointError(
                f"the loss is {float(loss.detach())} in epoch {epoch + 1}, step {step + 1}: lower the learning rates"
            )
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        processes.all_reduce(weight.grad for weight in weights)
        for optimizer in optimizers.values():
            optimizer.step()
        after_step()
        losses.append(processes.all_reduce_number(float(loss.detach()), loss.device))
    return sum(losses) / len(losses)


def _batch_loss(
    classifier: Trainable,
    data: ImageSet | Mixture,
    batch: Sequence[int],
    columns: Sequence[int],
    config: TrainingConfig,
    seed: int,
    epoch: int,
    device: torch.device,
) -> Tensor:
    """Return this process's share of the batch's mean loss; images are augmented on the classifier's device."""
    own, weight = processes.share(len(batch))
    weight, batch = weight * len(batch[own]) / len(batch), batch[own]
    images = augmented(data, batch, config.augment, seed, epoch, device)
    if isinstance(classifier, SourceAware):
        probabilities = classifier.of_sources(images, [data.sources[index] for index in batch], columns)
    else:
        probabilities = classifier(images, columns)  # (B, len(columns))
    return weight * annotated_loss(probabilities, data.targets[batch][:, columns].to(probabilities.device), config)


def augmented(
    data: ImageSet | Mixture,
    indices: Sequence[int],
    config: AugmentConfig,
    seed: int,
    epoch: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return (B, 3, P, P) float in [0, 1]: these images as training sees them in an epoch, counted from 0."""
    seeds = [sample_seed(seed, "augment", epoch, data.ids[index]) for index in indices]
    settings = [config.of(data.sources[index]) for index in indices]
    return augment(data.pixels(indices).to(device), seeds, settings)


def annotated_loss(probabilities: Tensor, targets: Tensor, config: TrainingConfig) -> Tensor:
    """Return the asymmetric loss of probabilities (B, L) where targets (B, L) are annotated: 1 or 0, but not -1."""
    return asymmetric_loss(
        probabilities, targets.clamp(min=0).float(), config.gamma_neg, config.gamma_pos, config.clip, mask=targets >= 0
    )


def batch_indices(num_images: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return a shuffled pass over all images; a last batch of one image joins the one before it."""
    order = torch.randperm(num_images, generator=torch_generator(seed, "order", epoch)).tolist()
    batches = [order[start : start + batch_size] for start in range(0, num_images, batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [batches[-2] + batches[-1]]
    return batches


def label_columns(num_labels: int, labels_per_step: int | None, seed: int, epoch: int, step: int) -> list[int]:
    """Return the columns of one step, ascending: outputs and targets are both indexed by this list."""
    if labels_per_step is None or labels_per_step >= num_labels:
        return list(range(num_labels))
    generator = torch_generator(seed, "labels", epoch, step)
    return sorted(torch.randperm(num_labels, generator=generator)[:labels_per_step].tolist())


@torch.no_grad()
def predict(classifier: Trainable, images: Tensor, batch_size: int = 128) -> Tensor:
    """Return probabilities (N, L) on the CPU for uint8 images (N, 3, P, P), in evaluation mode."""
    classifier.eval()
    batches = ShrinkingBatches(batch_size, "predicting", TRAINING_MEMORY_REMEDY)
    return batches.concatenated(lambda batch: classifier(batch.float() / 255), images)
