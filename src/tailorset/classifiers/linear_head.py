"""A linear layer with max pooling over the positions of a CLIP's last feature map: nothing is shared between labels.

The simplest classifier on frozen features, and an independent baseline for the others on the same backbone: a linear
probe (`backbone_learning_rate: 0`) shows how much the features contain, a fine-tuned network how much the images do.
It learns a label from that label's own images only, so it has no zero-shot start.
Shapes: B images of a batch, N images, L labels, P positions, C channels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from tailorset.classifiers.parts.saved import Vision, reading_saved, write_saved
from tailorset.clip.dense_features import feature_map, grid_of
from tailorset.clip.model import OpenClip, preprocessed
from tailorset.records import LabelSpace
from tailorset.training.contract import TrainingConfig

SMALLEST_SPREAD = 1e-3  # of a channel, as a share of the widest: a constant one stays near zero


class Config(TrainingConfig):
    backbone: OpenClip
    learning_rate: float = Field(0.01, gt=0)  # of the linear layer: AdamW
    backbone_learning_rate: float = Field(0.0, ge=0)  # of the visual tower: AdamW; 0 = frozen
    weight_decay: float = Field(1.0e-2, ge=0)


class LinearHead(nn.Module):
    """p = sigmoid(max over positions of (W f + b)), f the standardised feature map of the tower."""

    mean: Tensor
    std: Tensor
    centre: Tensor  # (C,) of the feature map, over training images
    spread: Tensor  # (C,)

    def __init__(self, config: Config, label_space: LabelSpace, visual: nn.Module, vision: Vision) -> None:
        super().__init__()
        self.config, self.label_space, self.vision = config, label_space, vision
        self.labels, self.image_px = label_space.names, vision.image_px
        self.visual = visual.requires_grad_(config.backbone_learning_rate > 0)
        self.register_buffer("mean", torch.tensor(vision.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(vision.std).view(3, 1, 1), persistent=False)
        with torch.no_grad():
            channels = self._map(torch.zeros(1, 3, self.image_px, self.image_px)).shape[-1]
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))
        self.head = nn.Linear(channels, len(self.labels))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the linear layer; the tower keeps its normalisation statistics."""
        super().train(mode)
        self.visual.eval()
        return self

    def forward(self, images: Tensor, label_indices: Sequence[int] | None = None) -> Tensor:
        """images: (B, 3, H, W) float in [0, 1], any size -> (B, L) probabilities, or those of `label_indices`."""
        probabilities = self.scores(self.features(images)).amax(1).sigmoid()
        return probabilities if label_indices is None else probabilities[:, list(label_indices)]

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) probabilities and (B, C) features: the mean of the standardised map."""
        features = self.features(images)
        return self.scores(features).amax(1).sigmoid(), features.mean(1)

    def describe(self, images: Tensor) -> Tensor:
        """(B, C) features as `look` returns them."""
        return self.features(images).mean(1)

    def features(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W) float in [0, 1], any size -> the standardised feature map (B, P, C)."""
        return (self._map(images) - self.centre) / self.spread

    def scores(self, features: Tensor) -> Tensor:
        """Features (B, P, C) -> logits (B, P, L) of each position."""
        scores: Tensor = self.head(features)
        return scores

    def spatial_maps(self, images: Tensor) -> Tensor:
        """(B, L, h, w): the softmax over positions of each label's scores."""
        weights = self.scores(self.features(images)).softmax(1).transpose(1, 2)
        return weights.unflatten(-1, grid_of(weights.shape[-1]))

    @torch.no_grad()
    def calibrate(self, images: Tensor, targets: Tensor) -> None:
        """Standardise the feature map over images (N, 3, P, P) uint8, so that one learning rate suits any backbone."""
        total = squares = torch.zeros_like(self.centre, dtype=torch.float64)
        count = 0
        for batch in images.split(self.config.batch_size):
            values = self._map(batch.float() / 255).flatten(0, 1).double()
            total, squares, count = total + values.sum(0), squares + values.square().sum(0), count + len(values)
        centre = total / count
        self.centre.copy_(centre)
        spread = (squares / count - centre.square()).clamp(min=0).sqrt()
        self.spread.copy_(spread.clamp(min=SMALLEST_SPREAD * float(spread.max())))

    def raw_clip(self) -> LinearHead:
        """Return a copy of the untrained classifier: a linear layer has no zero-shot start."""
        return copy.deepcopy(self)

    def learned_modules(self) -> dict[str, nn.Module]:
        """Return the linear layer, and the tower if it is trained."""
        return {"head": self.head} | ({"visual": self.visual} if self.config.backbone_learning_rate else {})

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Return AdamW for the linear layer, and one with its own rate for a tower that is trained."""
        config = self.config
        optimizers = {"head": AdamW(self.head.parameters(), config.learning_rate, weight_decay=config.weight_decay)}
        if rate := config.backbone_learning_rate:
            optimizers["visual"] = AdamW(self.visual.parameters(), rate, weight_decay=config.weight_decay, fused=True)
        return optimizers

    def save(self, folder: Path) -> None:
        """Write config.json and classifier.safetensors, the visual tower among its tensors."""
        write_saved(folder, "linear_head", self, self.config, self.label_space, self.vision)

    def _map(self, images: Tensor) -> Tensor:
        """(B, P, C), as the tower computes it."""
        sized = preprocessed(images.to(self.mean.device), self.image_px, self.mean, self.std, self.vision.interpolation)
        return feature_map(self.visual)(sized.contiguous(memory_format=torch.channels_last))


def build(config: Config, label_space: LabelSpace, device: torch.device | str = "cpu") -> LinearHead:
    """Return an untrained classifier on the backbone.

    Raises:
        ValueError: the backbone is missing or unsuitable.
    """
    clip = config.backbone.load("cpu")
    visual: Any = clip.model.visual.to(memory_format=torch.channels_last)
    return LinearHead(config, label_space, visual, Vision.of(clip)).to(device)


def load(folder: Path, device: torch.device) -> LinearHead:
    """Return a saved classifier in evaluation mode.

    Raises:
        ValueError: config and weights are missing, damaged or of different models.
    """
    with reading_saved(folder) as saved:
        config = Config.model_validate(saved.description["config"])
        classifier = LinearHead(config, saved.label_space, saved.visual, saved.vision)
        classifier.load_state_dict(saved.tensors)
    return classifier.to(device).eval()
