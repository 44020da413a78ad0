"""Contract between a classifier plug-in and training: its settings and its methods.

Loading a trained classifier imports this module, so it imports nothing of the loop.
Shapes: B images of a batch, N images, L labels, H x W and P x P pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import not_
from typing import Annotated, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from tailorset.records import LabelSpace, Source


class Augmentation(BaseModel):
    """Random changes to one kind of image; by default none, so that every label stays visible."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    flip: bool = False  # mirror half of the images left to right; not for labels that tell left from right
    cutout: float = Field(0.0, ge=0, le=1)  # side of the erased square, as a share of the image's; 0 = off
    rand_augment: bool = False
    low_resolution: float = Field(0.0, ge=0, le=1)  # probability of passing through a quarter to half the resolution
    zoom_out: float = Field(1.0, gt=0, le=1)  # smallest scale of the image, mirrored at its edges; 1 = off


class AugmentConfig(BaseModel):
    """Settings of photos and of generated images. The paper's are `cutout: 0.5, rand_augment: true` for both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    real: Augmentation = Augmentation()
    synthetic: Augmentation = Augmentation()

    def of(self, source: Source) -> Augmentation:
        return self.real if source == "real" else self.synthetic


class TrainingConfig(BaseModel):
    """Settings of the loop; a classifier's Config adds its own.

    Settings with `exclude_if` are written only where they are on: folders of older classifiers have the same bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    train_on: tuple[Source, ...] = Field(("real", "synthetic"), min_length=1)
    augment: AugmentConfig = AugmentConfig()
    num_epochs: int = Field(8, ge=1)
    warmup_epochs: int = Field(1, ge=0)
    ema_decay: float = Field(0.0, ge=0, lt=1)  # of the weights' moving average, which is validated and kept; 0 = none
    batch_size: int = Field(64, ge=2)  # the fusion's normalisation needs at least two images
    gamma_neg: float = Field(2.0, ge=0)
    gamma_pos: float = Field(1.0, ge=0)
    clip: float = Field(0.05, ge=0, lt=1)
    # shares of the trained weights in a mean with those at the start, e.g. (0.25, 0.5, 0.75), tried on val at the end
    interpolation: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field((), exclude_if=not_)
    choose_on_seen: bool = Field(False, exclude_if=not_)  # val chooses by its seen labels only, not by all annotations
    labels_per_step: int | None = Field(None, ge=1)  # columns drawn for a step; None = all (1,000 labels: 100)

    @property
    def raw_clip_template(self) -> str | None:
        """Wording by which `raw_clip` names a label; None if the classifier starts from no CLIP."""
        return None

    def problems(self, label_space: LabelSpace) -> list[str]:
        """Return why these labels cannot be learned with these settings; only what can be checked without weights."""
        return []

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_epochs >= self.num_epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}, and num_epochs {self.num_epochs}: lower warmup_epochs to"
                f" {self.num_epochs - 1}, or train for more epochs"
            )
        return self


class Trainable(Protocol):
    """An nn.Module that training calibrates, compares with raw CLIP, updates and stores."""

    def __call__(self, images: Tensor, label_indices: Sequence[int] | None = None) -> Tensor:
        """images: (B, 3, H, W) float in [0, 1], any size -> (B, L) probabilities, or the columns of `label_indices`."""
        ...

    def train(self, mode: bool = True) -> nn.Module: ...

    def eval(self) -> nn.Module: ...

    def calibrate(self, images: Tensor, targets: Tensor) -> None:
        """Before training: fit the scale of the scores to images (N, 3, P, P) uint8 and targets (N, L)."""
        ...

    def raw_clip(self) -> Self:
        """Before training: return a classifier that ranks labels and images exactly as raw CLIP does.

        It is only calibrated, used and saved.
        """
        ...

    def learned_modules(self) -> dict[str, nn.Module]:
        """Return the modules that training changes, by name: the state to store between epochs. The rest is frozen."""
        ...

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Return fresh optimisers of the learned parameters; their default `lr` is the base rate of the schedule."""
        ...


@runtime_checkable
class SourceAware(Protocol):
    """A classifier that may learn some parameters separately for photos and for generated images."""

    def of_sources(
        self, images: Tensor, sources: Sequence[Source], label_indices: Sequence[int] | None = None
    ) -> Tensor:
        """Return the probabilities (B, L) that training compares with the targets; sources: one per image."""
        ...


class Support(Protocol):
    """Generated images that a classifier keeps. Shapes: K kept images, D features."""

    @property
    def max_images(self) -> int:
        """Largest number of them; 0 = the settings ask for none."""
        ...

    def fill(self, features: Tensor, targets: Tensor) -> None:
        """Keep images: their features (K, D) and their targets (K, L)."""
        ...

    def trials(self, logits: Tensor, features: Tensor) -> Iterator[tuple[dict[str, float], Tensor]]:
        """Yield each setting to try with the logits (N, L) that it makes of these and of the features (N, D)."""
        ...

    def use(self, setting: Mapping[str, float]) -> None:
        """Use the kept images under this setting from now on; forget them if the keys of one are not in it."""
        ...


@runtime_checkable
class Supported(Protocol):
    """A classifier that may keep generated images and compare photos with them."""

    @property
    def cache(self) -> Support: ...

    def without_cache(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images: (B, 3, H, W) float in [0, 1] -> (B, L) logits and (B, D) features."""
        ...
