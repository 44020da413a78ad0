"""Any text-to-image pipeline of diffusers, untuned: its own sampling loop, with latents and text states made here.

Shapes: B images of a batch.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor
from torch.nn import functional as F

from tailorset.generators import Part
from tailorset.generators.parts.families import TESTED, Guidance, denoiser, guidance_arguments, noise
from tailorset.generators.parts.lora import check_zero_updates
from tailorset.generators.parts.pipeline_config import INDEX, PipelineConfig
from tailorset.generators.parts.pipelines import (
    empty_pipeline,
    fitting,
    guard_decoder,
    load_limited_tokenizers,
    load_pipeline,
    networks,
)

log = logging.getLogger(__name__)

# Pipelines rewrite prompts and change sizes unless told otherwise.
PLAIN: dict[str, Any] = {
    "num_images_per_prompt": 1,
    "clean_caption": False,
    "complex_human_instruction": None,
    "caption_upsample_temperature": None,
    "skip_text_cleaning": True,
    "use_resolution_binning": False,
}


class Config(PipelineConfig):
    """A pipeline, its guidance, and options for speed and memory."""

    guidance: Guidance
    negative_prompt: str = ""  # only with classifier-free guidance
    # Of text encoders and denoiser; the VAE decodes in float32. float16 overflows in several of these models.
    dtype: Literal["float32", "bfloat16"] = "float32"
    vae_slicing: bool = False  # decode one image at a time: the same images for less memory
    vae_tiling: bool = False  # decode large images in overlapping tiles, whose pixels differ slightly
    # Fuse the operations of denoiser and decoder by torch.compile, which takes minutes at the start; images differ by
    # rounding.
    compile: bool = False
    # group: weights stay in the CPU's memory and visit the device one layer at a time, for models larger than it.
    offload: Literal["none", "group"] = "none"

    @model_validator(mode="after")
    def _compiled_where_it_stays(self) -> Self:
        if self.compile and self.offload != "none":
            raise ValueError(f"offload is {self.offload} and compile is true: choose one of them")
        return self

    @model_validator(mode="after")
    def _negative_prompt_has_an_effect(self) -> Self:
        if self.negative_prompt and self.guidance.kind != "classifier_free":
            raise ValueError(
                f"negative_prompt is {self.negative_prompt!r}, which has no effect with guidance.kind"
                f" {self.guidance.kind}: remove it, or choose classifier_free"
            )
        return self

    @property
    def untunable(self) -> str:
        return "generator diffusers cannot tune: the pipelines of that library pass no gradients to a text encoder"

    @property
    def needed_files(self) -> tuple[str, ...]:
        return (INDEX, "*/*.safetensors")

    def networks(self, index: Mapping[str, Any]) -> Iterable[str]:
        return networks(index)

    def check_fit(self, folder: Path) -> None:
        try:
            pipeline = empty_pipeline(folder)
        except (AttributeError, TypeError):  # of a class that is not tested, and needs its text encoder to be built
            return
        Diffusers(self.model_copy(update={"compile": False, "offload": "none"}), pipeline, "meta")


class Diffusers:
    """A frozen pipeline. Tested classes draw batches, others one image at a time."""

    def __init__(self, config: Config, pipeline: Any, device: torch.device | str) -> None:
        self.config, self.image_px, self.device = config, config.image_px, torch.device(device)
        self.pipeline = pipeline
        if config.offload == "group":
            pipeline.enable_group_offload(self.device, offload_type="leaf_level")
        else:
            pipeline.to(self.device)
        self.name = type(pipeline).__name__
        self.family = TESTED.get(self.name)
        self._arguments = inspect.signature(pipeline.__call__).parameters
        self._guidance = self._guidance_arguments()
        if (vae := pipeline.components.get("vae")) is not None:
            guard_decoder(vae)
            if config.vae_slicing:
                vae.enable_slicing()
            if config.vae_tiling:
                vae.enable_tiling()
        self._check_size()
        if config.compile:
            denoiser(pipeline).compile()
            if hasattr(vae, "decoder"):
                vae.decoder.compile()

    def sample(
        self,
        prompts: list[str],
        seeds: list[int],
        num_inference_steps: int,
        backprop_steps: int = 0,
        stop_after: int | None = None,
    ) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1]; see `generators.Generator`.

        Raises: ValueError for lengths that do not fit, and for what only tuning asks for.
        """
        if len(prompts) != len(seeds) or not prompts:
            raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds: give one seed per prompt, at least one")
        if backprop_steps or stop_after not in (None, num_inference_steps):
            raise ValueError(f"{self.config.untunable}: set backprop_steps to 0 and stop_after to None")
        if self.family and not self.family.one_by_one:
            return self._draw_tested(prompts, seeds, num_inference_steps)
        draw = self._draw_tested if self.family else self._draw_untested
        return torch.cat([draw([one], [seed], num_inference_steps) for one, seed in zip(prompts, seeds, strict=True)])

    def load_adapter(self, folder: Path, part: Part = "text_encoders") -> None:
        """Accept a folder of zero updates, which changes nothing.

        Raises:
            ValueError: the folder holds an adapter, which stock pipelines do not use, or is not a product of tuning.
        """
        check_zero_updates(folder, self.config.untunable)

    @property
    def _guided(self) -> bool:
        return self.config.guidance.kind == "classifier_free"

    def _draw_tested(self, prompts: list[str], seeds: list[int], num_inference_steps: int) -> Tensor:
        """Draw a batch with a tested class; schedulers that add noise in every step use the same generators."""
        assert self.family
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        latents = noise(self.pipeline, self.family, self.image_px, generators).to(self.device)
        if not self.family.in_float32:
            latents = latents.to(denoiser(self.pipeline).dtype)
        texts = self._texts(prompts) | fitting(self.pipeline.__call__, {"negative_prompt": None})
        return self._call(num_inference_steps, latents=latents, generator=generators, **texts)

    def _draw_untested(self, prompts: list[str], seeds: list[int], num_inference_steps: int) -> Tensor:
        """Draw one image alone: in a class that is not tested, images of a batch might influence each other."""
        (prompt,), (seed,) = prompts, seeds
        negative = {"negative_prompt": self.config.negative_prompt} if self._guided else {}
        negative = fitting(self.pipeline.__call__, negative)
        generator = torch.Generator().manual_seed(seed)
        return self._call(num_inference_steps, prompt=prompt, generator=generator, **negative)

    def _call(self, num_inference_steps: int, **arguments: Any) -> Tensor:
        images = self.pipeline(
            height=self.image_px,
            width=self.image_px,
            num_inference_steps=num_inference_steps,
            output_type="pt",
            **fitting(self.pipeline.__call__, PLAIN),
            **self._guidance,
            **arguments,
        ).images
        if images.shape[1:] != (size := (3, self.image_px, self.image_px)):
            raise ValueError(
                f"{self.name} drew images of {tuple(images.shape[1:])} instead of {size}: change generator.image_px"
            )
        return images.float().clamp(0, 1)

    @torch.no_grad()
    def _texts(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Return the arguments that stand for the prompts, each encoded alone: no other prompt changes its padding."""
        encoded = {prompt: self._encode(prompt) for prompt in dict.fromkeys(prompts)}
        names = encoded[prompts[0]]
        return {name: _joined([encoded[prompt][name] for prompt in prompts]) for name in names}

    def _encode(self, prompt: str) -> dict[str, Any]:
        """Return the arguments for one prompt, and for the negative one if `encode_prompt` does not encode it."""
        own = self._encoded(prompt)
        if self._guided and "negative_prompt" not in inspect.signature(self.pipeline.encode_prompt).parameters:
            own |= {f"negative_{name}": value for name, value in self._encoded(self.config.negative_prompt).items()}
        return own

    def _encoded(self, prompt: str) -> dict[str, Any]:
        """Return what `encode_prompt` makes of one prompt, by the names of the call's arguments."""
        assert self.family
        options = PLAIN | {
            "prompt": [prompt],
            "prompt_2": None,
            "prompt_3": None,
            "device": self.device,
            "do_classifier_free_guidance": self._guided,
        }
        if self._guided and self.config.negative_prompt:
            options["negative_prompt"] = [self.config.negative_prompt]
        if "max_sequence_length" in self._arguments:
            options["max_sequence_length"] = self._arguments["max_sequence_length"].default
        encode = self.pipeline.encode_prompt
        result = encode(**fitting(encode, options))
        values = dict(zip(self.family.encoded, result if isinstance(result, tuple) else (result,), strict=False))
        if self.family.pads:
            values = _padded(values, options["max_sequence_length"])
        return {name: value for name, value in values.items() if self._guided or not name.startswith("negative_")}

    def _guidance_arguments(self) -> dict[str, float]:
        """Return the arguments for the guidance of the settings.

        Raises: ValueError if the class, or this model of it, has no such guidance.
        """
        if self.family:
            return guidance_arguments(self.pipeline, self.config.guidance, self.family.scale, self.family.off)
        log.warning(
            "%s is not tested with tailorset: its images are drawn one by one, and guidance may mean something else",
            self.name,
        )
        scale = "true_cfg_scale" if "true_cfg_scale" in self._arguments else "guidance_scale"
        if self._guided and scale not in self._arguments:
            raise ValueError(f"{self.name} has no classifier-free guidance: set guidance.kind to none")
        if self.config.negative_prompt and "negative_prompt" not in self._arguments:
            raise ValueError(f"{self.name} has no negative prompt: remove generator.negative_prompt")
        return fitting(self.pipeline.__call__, guidance_arguments(self.pipeline, self.config.guidance, scale, off=1))

    def _check_size(self) -> None:
        multiple = self.pipeline.vae_scale_factor * self.family.cells if self.family else 1
        if self.image_px % multiple:
            raise ValueError(
                f"generator.image_px is {self.image_px}: choose a multiple of {multiple}, which this model draws"
            )


def build(config: Config, device: torch.device | str) -> Diffusers:
    """Load the pipeline.

    Raises:
        ValueError: the folder or hub id is missing, is not a text-to-image pipeline, has damaged or incomplete weights,
            or does not support this guidance or size; or `offload` is set and the device is the CPU.
    """
    if config.offload != "none" and torch.device(device).type == "cpu":
        raise ValueError(f"generator.offload is {config.offload}, and the device is the CPU itself: set it to none")
    pipeline = load_pipeline(config.model, config.revision, getattr(torch, config.dtype))
    return Diffusers(config, pipeline, device)


def build_tokenizers(config: Config) -> list[Any]:
    """Return one tokenizer per text encoder, without loading anything else.

    Raises:
        ValueError: the folder or hub id is missing, is not a text-to-image pipeline, or a tokenizer is damaged.
    """
    return load_limited_tokenizers(config.model, config.revision)


def _joined(values: Sequence[Any]) -> Any:
    """Return one batch of the values of single prompts: tensors, or lists of tensors of different lengths."""
    if isinstance(values[0], list):
        return [tensor for value in values for tensor in value]
    return torch.cat(list(values))


def _padded(values: dict[str, Any], length: int) -> dict[str, Any]:
    """Return states (1, tokens, width) and their mask, padded to a fixed length."""
    states, mask = values.values()
    mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device) if mask is None else mask
    missing = length - states.shape[1]
    return dict(zip(values, (F.pad(states, (0, 0, 0, missing)), F.pad(mask, (0, missing))), strict=True))
