"""Families of text-to-image pipelines that are tested: the arguments of their call, their latents, their guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tailorset.messages import Strict

EMBEDDED = "guidance_scale"  # argument that sets embedded guidance


class Guidance(Strict):
    """The pull of an image towards its prompt.

    classifier_free: prediction without the prompt + scale * (with - without), two passes per step; embedded: the model
    itself reads the scale; none: one pass per step.
    """

    kind: Literal["classifier_free", "embedded", "none"]
    scale: float | None = Field(default=None, ge=0)  # unset for `none`

    @model_validator(mode="after")
    def _scale_fits(self) -> Self:
        if (self.kind == "none") != (self.scale is None):
            raise ValueError(
                f"guidance is {self.kind} with scale {self.scale}: give a scale, or kind: none without one"
            )
        if self.kind == "classifier_free" and (self.scale or 0) <= 1:
            raise ValueError(f"guidance.scale is {self.scale}: classifier-free guidance is above 1, or kind: none")
        return self


class Family(NamedTuple):
    """Differences of one pipeline class from the others.

    encoded: arguments of the call, in the order in which `encode_prompt` returns them.
    scale: argument that sets classifier-free guidance; off: its value without guidance, which stands for scale 1.
    layout: of the latents that the call takes.
    cells: the side of an image must be a multiple of this many latent pixels.
    in_float32: latents stay in float32 whatever the dtype.
    pads: prompts must be padded, as they are encoded to as many states as they have tokens.
    one_by_one: images are drawn in batches of one, as the class fails for more with classifier-free guidance.
    """

    encoded: tuple[str, ...]
    scale: str = "guidance_scale"
    off: float = 1
    layout: Literal["plain", "packed", "patches"] = "plain"
    cells: int = 1
    in_float32: bool = False
    pads: bool = False
    one_by_one: bool = False


_PAIR = ("prompt_embeds", "negative_prompt_embeds")
_POOLED = (*_PAIR, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_MASKED = (_PAIR[0], "prompt_attention_mask", _PAIR[1], "negative_prompt_attention_mask")
TESTED: dict[str, Family] = {
    "StableDiffusionPipeline": Family(_PAIR),
    "StableDiffusionXLPipeline": Family(_POOLED),
    "StableDiffusion3Pipeline": Family(_POOLED, cells=2),
    "PixArtSigmaPipeline": Family(_MASKED, cells=2),
    "SanaPipeline": Family(_MASKED, in_float32=True),
    "PRXPipeline": Family(_MASKED, cells=2, one_by_one=True),
    "ZImagePipeline": Family(_PAIR, off=0, cells=2, in_float32=True),
    "FluxPipeline": Family(("prompt_embeds", "pooled_prompt_embeds"), "true_cfg_scale", layout="packed", cells=2),
    "Flux2KleinPipeline": Family(("prompt_embeds",), layout="patches", cells=2),
    "QwenImagePipeline": Family(
        ("prompt_embeds", "prompt_embeds_mask"), "true_cfg_scale", layout="packed", cells=2, pads=True
    ),
}


def guidance_arguments(pipeline: Any, guidance: Guidance, scale: str, off: float) -> dict[str, float]:
    """Return the arguments of the pipeline's call that mean this guidance.

    Raises:
        ValueError: the model has no guidance of this kind.
    """
    kind, value = type(pipeline).__name__, guidance.scale or 0.0
    settings = denoiser(pipeline).config
    is_embedded = settings.get("guidance_embeds", False) or settings.get("time_cond_proj_dim") is not None
    if guidance.kind == "embedded":
        if not is_embedded:
            raise ValueError(f"{kind}: this model has no embedded guidance; choose classifier_free or none")
        return {EMBEDDED: value}
    if is_embedded and (guidance.kind == "none" or scale == EMBEDDED):
        raise ValueError(
            f"{kind}: the guidance of this model is embedded, so every step reads a scale; set guidance.kind to"
            " embedded" + (" or classifier_free" if scale != EMBEDDED else "")
        )
    if guidance.kind == "none":
        return {scale: off}
    if pipeline.config.get("is_distilled", False):
        raise ValueError(f"{kind}: this model is distilled and ignores guidance; set guidance.kind to none")
    return ({EMBEDDED: 1.0} if is_embedded else {}) | {scale: value - 1 + off}


def denoiser(pipeline: Any) -> Any:
    """Return the network that is run in every step.

    Raises:
        ValueError: there is none of the usual names.
    """
    network = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    if network is None:
        raise ValueError(f"{type(pipeline).__name__} has no single unet or transformer: name a model of another class")
    return network


def noise(pipeline: Any, family: Family, image_px: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Return standard normal latents as the pipeline's call takes them, float32, each image from its own generator."""
    channels, cells = denoiser(pipeline).config.in_channels, image_px // pipeline.vae_scale_factor
    if family.layout == "packed":
        channels //= 4
    elif family.layout == "patches":
        cells //= 2
    latents = torch.stack([torch.randn(channels, cells, cells, generator=generator) for generator in generators])
    if family.layout == "packed":
        return pipeline._pack_latents(latents, len(latents), channels, cells, cells)
    return latents
