"""Bounds from outside: what the photos and the frozen backbone's features hold, measured without the method.

Shapes: N images, L labels, P positions, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from training_loop import device

from tailorset.classifiers.linear_head import Config, build
from tailorset.clip.model import OpenClip
from tailorset.evaluation.metrics import average_precisions
from tailorset.records import LabelSpace
from tailorset.toybox.objects import COLOURS
from tailorset.toybox.oracle import Oracle

BATCH = 64
HEAD_EPOCHS, NETWORK_EPOCHS = 30, 25
NETWORK_WIDTH, NETWORK_RATE = 16, 3e-3


def probe_map(model: str, space: LabelSpace, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Return the test mAP of a linear max-pool layer on the frozen feature map of CLIP `model`.

    train, test: images (N, 3, H, W) in [0, 1] and what they show, (N, L) bool; all labels annotated.
    """
    config = Config(backbone=OpenClip(model=model), batch_size=BATCH)
    classifier = build(config, space, device())
    images, targets = train
    classifier.calibrate((255 * images[:1000]).round().byte(), targets[:1000])
    with torch.no_grad():
        seen, unseen = (torch.cat([classifier.features(part) for part in x.split(BATCH)]) for x in (images, test[0]))
    head = classifier.head.train()
    learn(head, lambda rows: head(seen[rows]).amax(1), targets.to(seen.device), HEAD_EPOCHS, config.learning_rate)
    with torch.no_grad():
        return mean_average_precision(torch.cat([head(part).amax(1) for part in unseen.split(BATCH)]), test[1])


def from_scratch_map(space: LabelSpace, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Return the test mAP of a small convolutional network that has seen these photos only: the ceiling."""
    torch.manual_seed(0)
    network = Oracle(space.names, list(COLOURS), NETWORK_WIDTH).to(device(), memory_format=torch.channels_last).train()
    images, targets = train

    def logits(rows: Tensor) -> Tensor:
        batch = images[rows].to(device())
        batch = batch.flip(-1) if torch.rand(()) < 0.5 else batch
        return network(batch.contiguous(memory_format=torch.channels_last))[..., 0]

    learn(network, logits, targets.to(device()), NETWORK_EPOCHS, NETWORK_RATE)
    return mean_average_precision(network.eval().shown(test[0].to(device())), test[1])


def learn(module: nn.Module, logits: Callable[[Tensor], Tensor], targets: Tensor, epochs: int, rate: float) -> None:
    """Minimise the binary cross-entropy of `logits(rows)`; the rate falls to zero along a cosine."""
    optimizer = torch.optim.AdamW(module.parameters(), rate, weight_decay=1e-2)
    batches = list(shuffled(len(targets), epochs))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    for rows in tqdm(batches, desc=type(module).__name__):
        loss = F.binary_cross_entropy_with_logits(logits(rows), targets[rows].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def shuffled(count: int, epochs: int) -> Iterator[Tensor]:
    for epoch in range(epochs):
        order = torch.from_numpy(np.random.default_rng(epoch).permutation(count))
        yield from order.split(BATCH)


def mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    return float(average_precisions(scores.cpu(), targets.cpu().long()).mean())
