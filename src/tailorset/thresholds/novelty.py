"""Novelty of a photo: the distance of its features from those of the photos of training.

The Mahalanobis distance to one Gaussian for all labels. Shapes: N images, D features.
Source: Lee et al. 2018; the covariance shrunk as in Ledoit and Wolf 2004.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FAMILIAR_SHARE = 0.99  # of the photos that the limit is set by


@dataclass(frozen=True)
class Novelty:
    """mean: (D,). whitening: (D, D), after which features have unit covariance. limit: (), a distance."""

    mean: Tensor
    whitening: Tensor
    limit: Tensor

    def of(self, features: Tensor) -> Tensor:
        """(N,) float32 of features (N, D): 1 is the limit, above it a photo is unlike those of training."""
        return self._distances(features) / self.limit

    def save(self, path: Path) -> None:
        """Write three tensors as safetensors."""
        save_file({"mean": self.mean, "whitening": self.whitening, "limit": self.limit}, path)

    @classmethod
    def load(cls, path: Path) -> Novelty:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is missing, damaged, or has other content.
        """
        try:
            return cls(**load_file(path))
        except (OSError, TypeError, SafetensorError) as error:
            from tailorset.storage.products import unusable

            raise ValueError(unusable(path, "a limit of novelty", error, "fit_thresholds")) from error

    def _distances(self, features: Tensor) -> Tensor:
        return ((features.cpu().float() - self.mean) @ self.whitening).norm(dim=1)


def fit_novelty(known: Tensor, target: Tensor) -> Novelty:
    """Fit to features (N, D) of training photos, with the limit that FAMILIAR_SHARE of the target photos stay below.

    Raises:
        ValueError: too few photos.
    """
    from sklearn.covariance import LedoitWolf

    if min(len(known), len(target)) < 2:
        raise ValueError(
            f"{len(known)} training and {len(target)} val photos are too few to set a limit of novelty: add photos"
        )
    estimate = LedoitWolf().fit(known.double().numpy())
    values, vectors = torch.linalg.eigh(torch.from_numpy(estimate.covariance_))
    whitening = vectors / values.clamp_min(1e-12).sqrt()
    fitted = Novelty(known.double().mean(0).float(), whitening.float().contiguous(), torch.tensor(1.0))
    limit = torch.quantile(fitted._distances(target), FAMILIAR_SHARE).clamp_min(1e-6)
    return Novelty(fitted.mean, fitted.whitening, limit)
