"""Cache of generated images: photos are compared with images that the classifier keeps, whose labels are the answer.

Shapes: B images of a batch, N images, K kept images, L labels, D joint width.
Source: Tip-Adapter (Zhang et al. 2022); with generated images SuS-X (Udandarao et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

AT_ONCE = 1024  # images whose affinities are in memory


class CacheConfig(BaseModel):
    """Values of alpha and beta to try: the best pair on val is kept, or no cache if none is better.

    The cache takes max_images x (D + L) x 4 bytes: 9 MB for 2,000 images, 1,024 features and 80 labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    alpha: tuple[Annotated[float, Field(ge=0)], ...] = Field((0.25, 1.0, 4.0), min_length=1)  # weight; 0 = no cache
    beta: tuple[Annotated[float, Field(gt=0)], ...] = Field((2.0, 5.0, 20.0, 80.0), min_length=1)  # high = nearest only
    max_images: int = Field(2000, ge=1, le=20_000)  # labels take turns


class SupportCache(nn.Module):
    """logit_l + alpha * sum_k (w_k - 1 / K) y_kl,  w_k = exp(-beta (1 - cos_k)) / its sum over all kept images

    Nothing is added, and nothing stored, until the cache is filled.

    Deviation: Tip-Adapter sums the affinities. Here they are normalised to sum to 1, and a label's share of all kept
    images is subtracted. So a photo's mean distance from generated images, which says nothing about labels, does not
    affect the ranking of photos, and a label gains nothing from having more images.
    """

    features: Tensor  # (K, D), unit norm
    values: Tensor  # (K, L): y minus its mean, 0 for labels that are never annotated
    alpha: Tensor
    beta: Tensor

    def __init__(self, config: CacheConfig | None) -> None:
        super().__init__()
        self.config = config
        self._store(None, None, None, None)

    @property
    def max_images(self) -> int:
        """Largest number of kept images; 0 = the settings ask for no cache."""
        return self.config.max_images if self.config else 0

    def fill(self, features: Tensor, targets: Tensor) -> None:
        """Keep the features (K, D), unit norm, of images and their targets (K, L), 1 = shown."""
        shown = (targets == 1).to(features)
        self._store(features, shown - shown.mean(0), features.new_zeros(()), features.new_ones(()))

    def use(self, setting: Mapping[str, float]) -> None:
        """Use the kept images with `cache_alpha` and `cache_beta`; without these keys, forget the images."""
        if "cache_alpha" in setting:
            self.alpha.fill_(setting["cache_alpha"])
            self.beta.fill_(setting["cache_beta"])
        else:
            self._store(None, None, None, None)

    def trials(self, logits: Tensor, features: Tensor) -> Iterator[tuple[dict[str, float], Tensor]]:
        """Yield each setting to try with the logits (N, L) that it makes of these and of the features (N, D)."""
        assert self.config is not None, "a cache without settings has nothing to try"
        parts = list(zip(logits.split(AT_ONCE), features.split(AT_ONCE), strict=True))
        for alpha, beta in product(self.config.alpha, self.config.beta):
            self.use(setting := {"cache_alpha": alpha, "cache_beta": beta})
            yield setting, torch.cat([self(*part) for part in parts])

    def forward(self, logits: Tensor, features: Tensor, columns: Sequence[int] | None = None) -> Tensor:
        """Logits (B, L), or (B, columns), and features (B, D), unit norm -> logits of the same shape."""
        if self._buffers["features"] is None:
            return logits
        weights = (self.beta * (features @ self.features.T - 1)).softmax(-1)  # (B, K)
        values = self.values if columns is None else self.values[:, columns]
        return logits + self.alpha * (weights @ values)

    def make_room(self, tensors: Mapping[str, Tensor]) -> None:
        """Prepare for the tensors of a saved classifier, {name: tensor}, with a filled cache or without."""
        if "cache.features" in tensors:
            self._store(*(torch.empty_like(tensors[f"cache.{name}"]) for name in BUFFERS))

    def _store(self, *tensors: Tensor | None) -> None:
        for name, tensor in zip(BUFFERS, tensors, strict=True):
            self.register_buffer(name, tensor)


BUFFERS = ("features", "values", "alpha", "beta")
