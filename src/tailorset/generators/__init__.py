"""Plug-ins that draw images from prompts, with gradients to their text encoder where it can be tuned.

A generator is one file here with a `Config` (a GeneratorConfig), `build(config, device) -> Generator`, and
`build_tokenizers(config)`, one per text encoder: the part of a prompt that none of them reads cannot be drawn.
Shapes: B images of a batch, H x W pixels, C x h x w latents, T sampling steps, S of them taken, K of those keep
gradients. N photos, D numbers of a signature.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
from torch import Tensor, nn

from tailorset.messages import Strict

Part = Literal["text_encoders", "denoisers"]  # of a model, by its attribute: what an adapter is for


class GeneratorConfig(Strict):
    """Base of the settings of every generator."""

    starts_from_photos: ClassVar[bool] = False  # True if `build` returns a PhotoGenerator
    learns_photos: ClassVar[bool] = False  # True if `build` returns a PhotoLearner
    retrieves_photos: ClassVar[bool] = False  # True if `build` returns a PhotoRetriever

    @property
    def untunable(self) -> str:
        """Reason that the text encoder cannot be tuned; "" if it can, and `build` returns a TunableGenerator."""
        return ""


class Sampler(Protocol):
    """A model that draws images from prompts."""

    def sample(
        self,
        prompts: list[str],
        seeds: list[int],
        num_inference_steps: int,
        backprop_steps: int = 0,
        stop_after: int | None = None,
    ) -> Tensor:
        """Draw one image per prompt, (B, 3, H, W) float32 in [0, 1].

        seeds: one per prompt; an image depends on its own prompt and seed only, not on the rest of the batch.
        backprop_steps: K in 0..S, the last steps taken that pass gradients to the text encoder; 0 = none.
        stop_after: S in 1..T, steps after which the image is the one predicted from there; None = T.
        """
        ...


class Generator(Sampler, Protocol):
    """A text-to-image model."""

    @property
    def image_px(self) -> int:
        """Side of the square images."""
        ...

    def load_adapter(self, folder: Path, part: Part = "text_encoders") -> None:
        """Read an adapter that save_adapter wrote; a folder of zero updates leaves the model as it is.

        Raises:
            ValueError: there is no adapter, or it belongs to another model.
        """
        ...


class PhotoGenerator(Generator, Protocol):
    """A text-to-image model that can also start from a photo: image-to-image."""

    def encode(self, photos: Tensor) -> Tensor:
        """Return latents (B, C, h, w) of photos (B, 3, H, W) in [0, 1], of the side `image_px`."""
        ...

    def sample_from(
        self, latents: Tensor, strength: float, prompts: list[str], seeds: list[int], num_inference_steps: int
    ) -> Tensor:
        """Draw one image per prompt from latents (B, C, h, w) of photos; see `Sampler.sample`.

        strength: in (0, 1], the share of the steps that are taken, from latents with as much noise.
        """
        ...


class PhotoRetriever(Generator, Protocol):
    """A source of real photos in place of generated images."""

    def without_copies(self, held_out: np.ndarray) -> PhotoRetriever:
        """Return it without photos that are like one of val or test; held_out: signatures (N, D) of those.

        Raises:
            ValueError: no photo would be left.
        """
        ...


class TunableGenerator(Generator, Protocol):
    """A text-to-image model whose text encoders can be tuned; most models have one."""

    @property
    def text_encoders(self) -> nn.ModuleDict:
        """The modules to tune, by their names in diffusers; without an adapter no weight requires a gradient."""
        ...

    def enable_gradient_checkpointing(self) -> None:
        """Trade time for memory when K > 0: keep one step's activations at a time."""
        ...

    def add_adapter(self, rank: int, alpha: float, seed: int = 0, part: Part = "text_encoders") -> None:
        """Give a part of the model trainable low-rank matrices that change nothing yet."""
        ...

    def save_adapter(self, folder: Path, part: Part = "text_encoders") -> None:
        """Write the adapter in diffusers' LoRA format."""
        ...


class PhotoLearner(PhotoGenerator, TunableGenerator, Protocol):
    """A model whose UNet can be tuned as well, on photos."""

    @property
    def denoisers(self) -> nn.ModuleDict:
        """The UNet by its name in diffusers; without an adapter no weight requires a gradient."""
        ...

    def denoising_losses(self, latents: Tensor, prompts: list[str], seeds: list[int]) -> Tensor:
        """(B,) squared errors of the prediction for latents (B, C, h, w) with noise, by which the UNet was trained.

        seeds: one per image, of its noise and of how much of it there is.
        """
        ...
