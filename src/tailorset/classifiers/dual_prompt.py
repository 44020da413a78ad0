"""Dual learnable prompts over dense CLIP features, with global feature fusion in the visual tower.

Shapes: B images of a batch, L labels, P positions, D joint width.
Source: DualCoOp (Sun et al. 2022) with the fusion of Zhang et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import not_
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from tailorset.classifiers.parts.calibration import Calibration
from tailorset.classifiers.parts.fusion import fuse
from tailorset.classifiers.parts.saved import Vision, reading_saved, write_saved
from tailorset.classifiers.parts.support_cache import CacheConfig, SupportCache
from tailorset.clip.dense_features import crops, dense_encoder, grid_of, mixed_similarity, weighted_similarity
from tailorset.clip.model import Clip, OpenClip, preprocessed
from tailorset.records import LabelSpace, Source
from tailorset.training.contract import TrainingConfig

if TYPE_CHECKING:  # only training needs these, so they are imported inside functions
    from tailorset.classifiers.parts.added_labels import AddedLabels
    from tailorset.classifiers.parts.label_prompts import LabelPrompts

UNUSED = ("prompts.residual", "prompts.generated_tokens")  # after training
FORMER_SETTINGS = ("cutout", "rand_augment", "low_resolution", "zoom_out")  # of training, in older folders


class Config(TrainingConfig):
    backbone: OpenClip
    num_context_tokens: int = Field(16, ge=1)  # 64 in the paper; must leave room for the longest label
    template: str = Field("a photo of a {}", pattern=r"\{\}")  # wording of the zero-shot start
    fusion: bool = True
    learning_rate: float = Field(0.02, gt=0)  # of the contexts: SGD, momentum
    momentum: float = Field(0.9, ge=0, lt=1)
    label_residual_learning_rate: float = Field(0.0, ge=0)  # of each label's own change: AdamW; 0 = none, the paper
    added_label_learning_rate: float | None = Field(None, gt=0, exclude_if=not_)  # labels added later; None = usual
    fusion_learning_rate: float = Field(1.0e-4, gt=0)  # of the fusion: AdamW
    backbone_learning_rate: float = Field(0.0, ge=0, exclude_if=not_)  # of the tower: AdamW; 0 = frozen, the paper
    calibration_learning_rate: float = Field(0.01, gt=0)  # of scale and bias of the scores: AdamW
    weight_decay: float = Field(5.0e-4, ge=0)
    score_scale: float | None = Field(None, gt=0)  # of the summed similarity; None = the backbone's logit_scale
    spatial_scale: float | None = Field(None, gt=0)  # of the softmax over positions; None = a fifth of it
    global_weight: float = Field(0.5, ge=0, le=1)  # share of the pooled feature next to the dense ones; 0 = the paper
    separate_tokens: int = Field(0, ge=0, exclude_if=not_)  # of each context, learned separately by source
    cache: CacheConfig | None = Field(None, exclude_if=not_)  # generated images to compare with; None = none
    crop_weight: float = Field(0.0, ge=0, le=1, exclude_if=not_)  # share of the best crop in a saved classifier's score

    @property
    def raw_clip_template(self) -> str:
        return self.template

    def problems(self, label_space: LabelSpace) -> list[str]:
        """Return why a label's name does not fit after the contexts; a backbone from the hub is not checked."""
        from tailorset.classifiers.parts.label_prompts import misfit, token_counts

        counted = self.backbone.folder and token_counts(self.backbone.folder, label_space.names)
        problem = counted and misfit(label_space.names, *counted, self.num_context_tokens)
        return [f"train_classifier.{problem}"] if problem else []

    @model_validator(mode="after")
    def _factors_fit(self) -> Self:
        if self.separate_tokens > self.num_context_tokens:
            raise ValueError(
                f"separate_tokens {self.separate_tokens} is more than num_context_tokens {self.num_context_tokens}:"
                " choose 0 (all shared) to that number (none shared)"
            )
        if (self.separate_tokens or self.cache) and set(self.train_on) != {"real", "synthetic"}:
            raise ValueError(f"separate_tokens and cache need train_on [real, synthetic], not {list(self.train_on)}")
        if self.cache and self.choose_on_seen:
            raise ValueError("the cache scores unseen labels, and choose_on_seen uses seen labels only: remove one")
        return self


class DualPrompt(nn.Module):
    """The classifier: visual tower, frozen or fine-tuned, learned fusion, learned label prompts.

    score = s * (w (global_pos - global_neg) + (1 - w) (dense_pos - dense_neg)),  p = sigmoid(calibration(score)),
    which is the two-way softmax of (negative, positive) while the calibration is the identity. With OpenAI's CLIP s is
    100 = 20 * 5, the published scales; another backbone brings its own logit_scale. Deviations: the share w of the
    pooled feature (0 = published), `crop_weight` (a loaded classifier also looks at crops), `backbone_learning_rate`.
    """

    mean: Tensor
    std: Tensor
    text_features: Tensor  # (2, L, D): what evaluation uses, no text tower needed
    contexts: Tensor | None  # of a loaded classifier: what labels that are added later start from

    def __init__(
        self,
        config: Config,
        label_space: LabelSpace,
        visual: nn.Module,
        vision: Vision,
        logit_scale: float,
        prompts: LabelPrompts | None,
    ) -> None:
        super().__init__()
        self.config, self.label_space, self.vision, self.logit_scale = config, label_space, vision, logit_scale
        self.labels, self.image_px = label_space.names, vision.image_px
        self.groups = [len(self.labels)]  # labels that were learned together
        self.score_scale = config.score_scale or logit_scale
        self.spatial_scale = config.spatial_scale or self.score_scale / 5
        self.visual = visual.requires_grad_(prompts is not None and config.backbone_learning_rate > 0)
        self.encode = dense_encoder(self.visual)
        self.fusion = fuse(self.visual) if config.fusion else nn.ModuleList()
        self.calibration, self.cache = Calibration(), SupportCache(config.cache)
        self.prompts = prompts
        self.crop_weight = config.crop_weight if prompts is None else 0.0
        self.register_buffer("mean", torch.tensor(vision.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(vision.std).view(3, 1, 1), persistent=False)
        self.register_buffer("text_features", torch.zeros(2, len(self.labels), vision.embed_dim))
        self.register_buffer("contexts", None)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the tower, whose statistics stay fixed; leaving training updates label features.

        Raises:
            ValueError: the classifier was loaded for inference.
        """
        if mode and self.prompts is None:
            raise ValueError("a loaded classifier has no text tower to train through: build it from its params instead")
        super().train(mode)
        self.visual.eval()
        if not mode and self.prompts is not None:
            with torch.no_grad():
                self.text_features.copy_(self.prompts(range(len(self.labels))))
        return self

    def forward(self, images: Tensor, label_indices: Sequence[int] | None = None) -> Tensor:
        """images: (B, 3, H, W) float in [0, 1], any size -> (B, L) probabilities, or those of `label_indices`."""
        return self.logits(images, label_indices).sigmoid()

    def logits(self, images: Tensor, label_indices: Sequence[int] | None = None) -> Tensor:
        """Return the calibrated difference of positive and negative score, (B, L), mixed with that of the best crop."""
        return self._with_crops(self.of_features(*self.features(images), label_indices), images, label_indices)

    def without_cache(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, L) logits and (B, D) features: the inputs of the cache."""
        dense, pooled = self.features(images)
        return self.calibration(self.difference(dense, pooled, self._text(None))), pooled

    def of_sources(
        self, images: Tensor, sources: Sequence[Source], label_indices: Sequence[int] | None = None
    ) -> Tensor:
        """Return probabilities (B, L) in training: an image is compared with the prompts of its source."""
        if not self.config.separate_tokens:
            return self(images, label_indices)
        assert self.prompts is not None, "only a classifier built from its params is trained"
        dense, pooled = self.features(images)
        texts = self.prompts.of_sources(self._columns(label_indices))
        logits = dense.new_zeros(len(images), texts[0].shape[1])
        is_real = torch.tensor([source == "real" for source in sources], device=dense.device)
        for rows, text in zip((is_real, ~is_real), texts, strict=True):
            logits[rows] = self.calibration(self.difference(dense[rows], pooled[rows], text))
        return logits.sigmoid()

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) probabilities and (B, D) features: the mean of the dense ones."""
        dense, pooled = self.features(images)
        return self._with_crops(self.of_features(dense, pooled), images).sigmoid(), dense.mean(1)

    def describe(self, images: Tensor) -> Tensor:
        """(B, D) features as `look` returns them, in a fifth of its time if it scores crops."""
        return self.features(images)[0].mean(1)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Dense (B, P, D) and pooled (B, D) features of images as `forward` takes them."""
        return self.encode(self._preprocess(images))

    def of_features(self, dense: Tensor, pooled: Tensor, label_indices: Sequence[int] | None = None) -> Tensor:
        """Logits (B, L) of dense (B, P, D) and pooled (B, D) features, or those of `label_indices`."""
        columns = self._columns(label_indices)
        return self.cache(self.calibration(self.difference(dense, pooled, self._text(columns))), pooled, columns)

    def difference(self, dense: Tensor, pooled: Tensor, text: Tensor) -> Tensor:
        """Positive minus negative score (B, L) with texts (2, L, D), before calibration."""
        similarity = mixed_similarity(dense, pooled, text, self.spatial_scale, self.config.global_weight)
        return self.score_scale * (similarity[0] - similarity[1])

    def _with_crops(self, whole: Tensor, images: Tensor, label_indices: Sequence[int] | None = None) -> Tensor:
        if not self.crop_weight:
            return whole
        each = torch.stack([self.of_features(*self.features(crop), label_indices) for crop in crops(images)])
        return whole.lerp(each.amax(0), self.crop_weight)

    @torch.no_grad()
    def raw_clip(self) -> DualPrompt:
        """Return the formula without fusion, dense features and negative prompts; a frozen tower is shared."""
        assert self.prompts is not None, "only a classifier built from its params has the backbone's own prompts"
        plain = {"fusion": False, "global_weight": 1.0, "score_scale": None, "crop_weight": 0.0}
        config, visual = self.config.model_copy(update=plain), self.vision.build()
        visual.load_state_dict(self.visual.state_dict(), assign=not self.config.backbone_learning_rate)
        raw = DualPrompt(config, self.label_space, visual, self.vision, self.logit_scale, None)
        raw.text_features[0] = self.prompts.anchors[0]
        return raw.to(self.mean.device)

    @torch.no_grad()
    def calibrate(self, images: Tensor, targets: Tensor) -> None:
        """Fit the calibration to images (N, 3, P, P) uint8 and targets (N, L), -1 = not annotated."""
        self.calibration = Calibration().to(self.mean.device)
        self.eval()
        self.calibration.fit_images(lambda batch: self.logits(batch.float() / 255), images, targets, self.config)

    def spatial_maps(self, images: Tensor) -> Tensor:
        """(B, L, h, w): the weight of each position for each label."""
        dense, _ = self.features(images)
        _, weights = weighted_similarity(dense, self._text(None), self.spatial_scale)
        return weights.unflatten(-1, grid_of(weights.shape[-1]))

    def learned_modules(self) -> dict[str, nn.Module]:
        """Return contexts (in training), calibration, fusion and a tuned tower; what is frozen is the backbone's."""
        modules: dict[str, nn.Module] = {"calibration": self.calibration}
        modules |= {"fusion": self.fusion} if self.config.fusion else {}
        modules |= {"visual": self.visual} if self.config.backbone_learning_rate else {}
        return modules if self.prompts is None else {"prompts": self.prompts} | modules

    def optimizers(self) -> dict[str, Optimizer]:
        """Return SGD for the contexts, as published, and AdamW for all else."""
        from tailorset.classifiers.parts.optimizers import optimizers

        return optimizers(self)

    def save(self, folder: Path) -> None:
        """Write config.json and classifier.safetensors: label features, learned modules and the visual tower."""
        write_saved(
            folder, "dual_prompt", self, self.config, self.label_space, self.vision, logit_scale=self.logit_scale
        )

    def _text(self, label_indices: Sequence[int] | None) -> Tensor:
        columns = self._columns(label_indices)
        if self.training:
            assert self.prompts is not None
            return self.prompts(columns)
        return self.text_features[:, columns]

    def _columns(self, label_indices: Sequence[int] | None) -> list[int]:
        return list(range(len(self.labels)) if label_indices is None else label_indices)

    def _preprocess(self, images: Tensor) -> Tensor:
        sized = preprocessed(images.to(self.mean.device), self.image_px, self.mean, self.std, self.vision.interpolation)
        return sized.contiguous(memory_format=torch.channels_last)


def build(config: Config, label_space: LabelSpace, device: torch.device | str = "cpu") -> DualPrompt:
    """Return a classifier near zero-shot CLIP, ready to be trained.

    Raises:
        ValueError: the backbone is missing or unsuitable, or the contexts do not fit next to a label.
    """
    return on_clip(config, label_space, config.backbone.load(device))


def on_clip(config: Config, label_space: LabelSpace, clip: Clip) -> DualPrompt:
    """Return what `build` does, for a backbone that is already loaded."""
    from tailorset.classifiers.parts.label_prompts import LabelPrompts

    prompts = LabelPrompts.of(clip, label_space.names, config)
    prompts.residual.requires_grad_(config.label_residual_learning_rate > 0)
    visual: Any = clip.model.visual.to(memory_format=torch.channels_last)
    vision = Vision.of(clip, is_tuned=config.backbone_learning_rate > 0)
    return DualPrompt(config, label_space, visual, vision, clip.logit_scale, prompts).to(clip.device)


def load(folder: Path, device: torch.device) -> DualPrompt:
    """Return a saved classifier in evaluation mode.

    Raises:
        ValueError: config and weights are missing, damaged or of different models.
    """
    with reading_saved(folder) as saved:
        settings = {key: one for key, one in saved.description["config"].items() if key not in FORMER_SETTINGS}
        config, logit_scale = Config.model_validate(settings), float(saved.description["logit_scale"])
        make: Callable[..., DualPrompt] = DualPrompt
        if groups := saved.description.get("groups"):
            from tailorset.classifiers.parts.grown_prompt import GrownPrompt

            make = partial(GrownPrompt, groups)
        classifier = make(config, saved.label_space, saved.visual, saved.vision, logit_scale, None)
        tensors = {name.removeprefix("prompts."): one for name, one in saved.tensors.items() if name not in UNUSED}
        classifier.contexts = tensors.get("contexts")  # raw CLIP has none
        classifier.cache.make_room(tensors)
        classifier.load_state_dict(tensors)
    return classifier.to(device).eval()


def extend(config: Config, folder: Path, label_space: LabelSpace, device: torch.device) -> AddedLabels:
    """Return a saved classifier that learns the labels behind its own in `label_space`, by the rates of `config`."""
    from tailorset.classifiers.parts.added_labels import AddedLabels

    return AddedLabels.onto(load(folder, device), config, label_space)
