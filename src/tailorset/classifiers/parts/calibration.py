"""Platt scaling of classifier scores, learned on before and during training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

PRIOR = 0.01  # weight of log_scale squared


class Calibration(nn.Module):
    """logits -> exp(log_scale) * logits + bias, one pair for all labels; starts as the identity.

    Zero-shot scores on a new domain are overconfident. Uncalibrated, a classification loss is lowered fastest by
    making the positive and negative prompts alike, which destroys the ranking they start with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(()))

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
            value = loss(self(logits - centre).sigmoid()) + PRIOR * self.log_scale**2
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        optimizer.zero_grad()
        with torch.no_grad():
            self.bias -= self.log_scale.exp() * centre
