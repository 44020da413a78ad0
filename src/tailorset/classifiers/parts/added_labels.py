"""Labels that a trained classifier learns later, each by parameters of its own; everything else is frozen.

Shapes: B images of a batch, N images, L labels of the classifier, A added labels, P x P pixels, D joint width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from tailorset.classifiers.parts.calibration import Calibration
from tailorset.classifiers.parts.grown_prompt import GrownPrompt
from tailorset.classifiers.parts.label_prompts import LabelPrompts
from tailorset.classifiers.parts.saved import weights_digest
from tailorset.records import LabelSpace

if TYPE_CHECKING:
    from tailorset.classifiers.dual_prompt import Config, DualPrompt
    from tailorset.clip.model import Clip

LEARNING_RATE = 1.0e-4  # of the residual; at 3.0e-3 it drifts towards the look of generated images


class AddedText(nn.Module):
    """text = normalise(start + residual), positive and negative, (2, A, D); the residual is learned from 0.

    Source: task residual, Yu et al. 2023.
    """

    start: Tensor  # (2, A, D)

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start, persistent=False)
        self.residual = nn.Parameter(torch.zeros_like(start))

    def forward(self) -> Tensor:
        """Return text features of unit norm, or zero if both terms are: raw CLIP has no negative prompt."""
        return F.normalize(self.start + self.residual, dim=-1)


def _check_same_tower(base: DualPrompt, clip: Clip) -> None:
    """Refuse a CLIP whose texts belong to another image tower than the one that the classifier started from.

    Raises:
        ValueError: names the backbone and the remedy.
    """
    if weights_digest(clip.model.visual) != (base.vision.tuned_from or weights_digest(base.visual)):
        raise ValueError(
            f"the backbone {base.config.backbone.title!r} has other weights than the classifier was trained with, to"
            " which its scores and thresholds belong: restore those weights, or train on these (`make run`)"
        )


class AddedLabels(nn.Module):
    """A Trainable: the classifier with A further labels behind its own.

    The scores of its own L labels are computed as before, but without crops and gradients.
    """

    def __init__(self, config: Config, base: DualPrompt, label_space: LabelSpace, start: Tensor) -> None:
        super().__init__()
        self.config, self.base, self.label_space = config, base.requires_grad_(False), label_space
        self.labels, self.image_px = label_space.names, base.image_px
        self.text = AddedText(start)
        self.calibration = Calibration(start.shape[1])

    @classmethod
    @torch.no_grad()
    def onto(cls, base: DualPrompt, config: Config, label_space: LabelSpace) -> AddedLabels:
        """Return a loaded classifier with the labels that follow its own in `label_space`.

        They start where the learned contexts put them, or from raw CLIP if that was kept.

        Raises:
            ValueError: the backbone is not usable or not the classifier's own, or the contexts do not fit next to a
                label.
        """
        clip = base.config.backbone.load(base.mean.device)
        _check_same_tower(base, clip)
        prompts = LabelPrompts.of(clip, label_space.names, base.config)
        added = range(len(base.labels), len(label_space.names))
        if base.contexts is None:
            positive = prompts.anchors[0, added]
            start = torch.stack([positive, torch.zeros_like(positive)])
        else:
            prompts.contexts.copy_(base.contexts)
            start = prompts(added)
        return cls(config, base, label_space, start).to(base.mean.device)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the added part; the classifier stays in evaluation mode."""
        self.training = mode
        for part in self.learned_modules().values():
            part.train(mode)
        return self

    def forward(self, images: Tensor, label_indices: Sequence[int] | None = None) -> Tensor:
        """images: (B, 3, H, W) float in [0, 1], any size -> (B, L + A) probabilities, or those of `label_indices`."""
        with torch.no_grad():
            dense, pooled = self.base.features(images)
            own = self.base.of_features(dense, pooled)
        added = self.calibration(self.base.difference(dense, pooled, self.text()))
        probabilities = torch.cat([own, added], 1).sigmoid()
        return probabilities if label_indices is None else probabilities[:, list(label_indices)]

    @torch.no_grad()
    def calibrate(self, images: Tensor, targets: Tensor) -> None:
        """Fit the calibration of the added labels to images (N, 3, P, P) uint8 and targets (N, L + A)."""
        text = self.text()
        self.calibration.fit_images(
            lambda batch: self.base.difference(*self.base.features(batch.float() / 255), text),
            images,
            targets[:, len(self.base.labels) :],
            self.config,
        )

    def raw_clip(self) -> AddedLabels:
        """Return the untrained start: raw CLIP could only replace the added labels, not the learned ones."""
        return AddedLabels(self.config, self.base, self.label_space, self.text.start).to(self.text.start.device)

    def learned_modules(self) -> dict[str, nn.Module]:
        """Return residual and calibration of the added labels."""
        return {"text": self.text, "calibration": self.calibration}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Return AdamW for both, without weight decay."""
        config = self.config
        return {
            "text": AdamW([self.text.residual], config.added_label_learning_rate or LEARNING_RATE, weight_decay=0),
            "calibration": AdamW(self.calibration.parameters(), config.calibration_learning_rate, weight_decay=0),
        }

    @torch.no_grad()
    def grown(self) -> DualPrompt:
        """Return the classifier of all labels: the added ones are a group of their own."""
        base = self.base
        tensors, visual = base.state_dict(), base.vision.build()
        num_added = len(self.labels) - len(base.labels)
        parts = (base.config, self.label_space, visual, base.vision, base.logit_scale, None)
        grown = GrownPrompt([*base.groups, num_added], *parts)
        grown.contexts = base.contexts
        tensors["text_features"] = torch.cat([base.text_features, self.text()], 1)
        for name in ("log_scale", "bias"):
            own, added = getattr(base.calibration, name), getattr(self.calibration, name)
            tensors[f"calibration.{name}"] = torch.cat([own.expand(len(base.labels)), added])
        grown.cache.make_room(tensors)
        grown.load_state_dict(tensors)
        return grown.to(base.mean.device).eval()
