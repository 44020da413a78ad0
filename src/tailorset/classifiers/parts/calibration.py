"""Platt scaling of classifier scores, learned on before and during training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from tailorset.training.contract import TrainingConfig

PRIOR = 0.01  # weight of log_scale squared


class Calibration(nn.Module):
    """logits -> exp(log_scale) * logits + bias; starts as the identity.

    num_labels: number of labels with their own scale and bias; None = one scale and bias for all.

    Zero-shot scores on a new domain are overconfident. Uncalibrated, a classification loss is lowered fastest by
    making the positive and negative prompts alike, which destroys the ranking they start with.
    """

    def __init__(self, num_labels: int | None = None) -> None:
        super().__init__()
        shape = () if num_labels is None else (num_labels,)
        self.log_scale = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, logits: Tensor) -> Tensor:
        return self.log_scale.exp() * logits + self.bias

    def fit(self, logits: Tensor, loss: Callable[[Tensor], Tensor], num_steps: int = 50) -> None:
        """Minimise loss(probabilities) over scale and bias by L-BFGS; logits are constants.

        A weak prior keeps the scale of useless scores from vanishing: nothing could be learned through it. Logits are
        centred meanwhile: raw CLIP's are all far above 0, where every probability is 1 and the loss has no gradient.
        Source: Platt 1999.
        """
        centre = logits.mean()
        optimizer = torch.optim.LBFGS(self.parameters(), max_iter=num_steps, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(self(logits - centre).sigmoid()) + PRIOR * self.log_scale.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        optimizer.zero_grad()
        with torch.no_grad():
            self.bias -= self.log_scale.exp() * centre

    def fit_images(
        self, logits_of: Callable[[Tensor], Tensor], images: Tensor, targets: Tensor, config: TrainingConfig
    ) -> None:
        """Fit to images (N, 3, P, P) uint8 and targets (N, L), -1 = not annotated, by the loss of training.

        logits_of: images -> logits (B, L), before this calibration.
        """
        from tailorset.compute.memory import ShrinkingBatches
        from tailorset.training.loop import TRAINING_MEMORY_REMEDY, annotated_loss

        batches = ShrinkingBatches(config.batch_size, "calibrating", TRAINING_MEMORY_REMEDY)
        logits, known = (part.to(self.bias.device) for part in (batches.concatenated(logits_of, images), targets))
        with torch.enable_grad():
            self.fit(logits, lambda probabilities: annotated_loss(probabilities, known, config))
