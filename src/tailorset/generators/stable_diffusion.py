"""Stable Diffusion 1, 2 and XL with a differentiable sampling loop.

model_index.json names the class: `StableDiffusionPipeline` or `StableDiffusionXLPipeline`.
Shapes: B images, T sampling steps, S of them taken, K of those with gradient, C latent channels, h x w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tailorset.generators import Part
from tailorset.generators.parts.components import (
    TEXT_ENCODERS,
    Components,
    FewStep,
    check_configs,
    fuse_few_step,
    latent_shape,
    load_checked_index,
    load_components,
    load_tokenizers,
)
from tailorset.generators.parts.denoising import training_pair, training_scheduler
from tailorset.generators.parts.feature_cache import FeatureCache
from tailorset.generators.parts.lora import add_lora, load_lora, save_lora
from tailorset.generators.parts.pipeline_config import INDEX, PipelineConfig
from tailorset.generators.parts.prompt_encoder import PromptEncoder, Text, unet_arguments
from tailorset.generators.parts.recomputation import recomputed
from tailorset.generators.parts.schedulers import clean_latents, noised, scheduler_for, steps_skipped


class Config(PipelineConfig):
    """A pipeline, the way it samples, and options for speed and memory."""

    starts_from_photos: ClassVar[bool] = True
    learns_photos: ClassVar[bool] = True
    guidance_scale: float = Field(default=7.5, ge=0)  # 1 or less switches guidance off and halves the cost
    negative_prompt: str = ""
    # Keep the text states that the negative prompt has without an adapter, in tuning and in drawing, so that only
    # prompts get a gradient.
    freeze_negative: bool = False
    # Of the UNet. The VAE always decodes in float32, as half precision overflows there, and text encoders stay in
    # float32, in which small updates are not lost.
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    vae_slicing: bool = False  # decode one image at a time: the same images for less memory
    vae_tiling: bool = False  # decode large images in overlapping tiles, whose pixels differ slightly
    # dpm++_2m needs few steps; dpm++_2m_early takes more of them where the prompt decides what is drawn where; euler is
    # the paper's; ddim_trailing starts from pure noise, as models distilled to few steps are trained to.
    scheduler: Literal["dpm++_2m", "dpm++_2m_early", "euler", "ddim", "ddim_trailing"] = "dpm++_2m"
    few_step: FewStep | None = None  # a LoRA that makes a few-step model, fused into the UNet
    # Fuse the operations of the UNet and the decoder by torch.compile when there is no gradient. It takes a minute or
    # two at the start, and images differ by rounding.
    compile: bool = False
    # Run the whole UNet only every n-th step, else its outermost blocks (`parts.feature_cache`); 1 = always the whole.
    cache_interval: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _one_speed_up(self) -> Self:
        if self.compile and self.cache_interval > 1:
            raise ValueError(f"cache_interval is {self.cache_interval} and compile is true: choose one of them")
        return self

    @property
    def needed_files(self) -> tuple[str, ...]:
        return (INDEX, *(f"{part}/*.safetensors" for part in ("text_encoder*", "unet", "vae")))

    def networks(self, index: Mapping[str, Any]) -> Iterable[str]:
        return *TEXT_ENCODERS.get(str(index.get("_class_name")), ()), "unet", "vae"

    def check_fit(self, folder: Path) -> None:
        check_configs(folder, self.image_px)


class StableDiffusion:
    """A VAE, a UNet and one or two text encoders, all frozen; UNet and text encoders take a LoRA adapter."""

    def __init__(self, config: Config, components: Components, device: torch.device | str) -> None:
        self.config = config
        self.image_px = config.image_px
        self.device = torch.device(device)
        self.gradient_checkpointing = False
        self.text_encoders = components.text_encoders
        self.prompt_encoder = PromptEncoder(components, config.image_px)
        self.denoisers = nn.ModuleDict({"unet": components.unet})
        self.unet: Any = components.unet
        self.vae: Any = components.vae
        for module in (self.text_encoders, self.unet, self.vae):
            module.eval().requires_grad_(False).to(device)
        if config.vae_slicing:
            self.vae.enable_slicing()
        if config.vae_tiling:
            self.vae.enable_tiling()
        if config.compile:
            self.unet.compile()
            self.vae.decoder.compile()
        self._cache = FeatureCache(self.unet) if config.cache_interval > 1 else None
        self._scheduler_config = components.scheduler_config
        self._latent_shape = latent_shape(config.image_px, self.unet.config, self.vae.config)
        negative = (config.negative_prompt, config.freeze_negative)
        self._frozen_negative = self.prompt_encoder.frozen_negative(*negative) if self._guided else None

    def sample(
        self,
        prompts: list[str],
        seeds: list[int],
        num_inference_steps: int,
        backprop_steps: int = 0,
        stop_after: int | None = None,
    ) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1]; see `generators.Generator`.

        Both guidance branches, the UNet's last K steps and the VAE pass gradients; before them the latents carry none
        (DRaFT-K, Clark et al. 2024). With S < T the last step taken predicts the image instead of the next latents
        (ReFL, Xu et al. 2023).

        Raises: ValueError for lengths or step counts that do not fit.
        """
        num_steps = num_inference_steps if stop_after is None else stop_after
        if len(prompts) != len(seeds) or not prompts:
            raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds: give one seed per prompt, at least one")
        if not 1 <= num_steps <= num_inference_steps:
            raise ValueError(f"{num_steps} steps: choose 1 to {num_inference_steps} (num_inference_steps, at least 1)")
        if not 0 <= backprop_steps <= num_steps:
            raise ValueError(f"backprop_steps {backprop_steps}: choose 0 to {num_steps}, the steps taken")
        with nullcontext() if backprop_steps else torch.no_grad():
            text, noise = self._guidance_text(prompts), self._noise(seeds)
            scheduler = scheduler_for(self.config.scheduler, self._scheduler_config, num_inference_steps, self.device)
            latents = noise * scheduler.init_noise_sigma
            return self.decode(self._denoise(scheduler, latents, text, (0, num_steps), backprop_steps))

    @torch.no_grad()
    def encode(self, photos: Tensor) -> Tensor:
        """Latents (B, C, h, w) of photos (B, 3, H, W) in [0, 1]: the mean of the VAE, nothing random."""
        pixels = (2 * photos - 1).to(self.device, self.vae.dtype)
        return self.vae.encode(pixels).latent_dist.mode() * self.vae.config.scaling_factor

    @torch.no_grad()
    def sample_from(
        self, latents: Tensor, strength: float, prompts: list[str], seeds: list[int], num_inference_steps: int
    ) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1]; see `generators.PhotoGenerator`."""
        first = steps_skipped(num_inference_steps, strength)
        scheduler = scheduler_for(self.config.scheduler, self._scheduler_config, num_inference_steps, self.device)
        noise = self._noise(seeds)
        start = noised(scheduler, latents.to(noise), noise, first)
        text = self._guidance_text(prompts)
        return self.decode(self._denoise(scheduler, start, text, (first, num_inference_steps), backprop_steps=0))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> images in [0, 1].

        Clamping ends the gradient of a pixel that is already beyond black or white: no further change there is seen.
        """
        latents = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        return (self._run(self.vae.decode, latents) / 2 + 0.5).clamp(0, 1)

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the UNet and the decoder in the backward pass, one of their blocks at a time.

        Steps before the last are recomputed as a whole first, so that memory does not grow with K; in the decoder one
        layer at a time: at 768 px the three of its last block keep 7 GB per image.
        """
        if self.gradient_checkpointing:
            return
        self.gradient_checkpointing = True
        self.unet.enable_gradient_checkpointing()
        self.vae.enable_gradient_checkpointing()
        for block in self.vae.decoder.up_blocks:
            for layer in block.resnets:
                layer.forward = recomputed(layer.forward)

    def add_adapter(self, rank: int, alpha: float, seed: int = 0, part: Part = "text_encoders") -> None:
        """Add LoRA that changes nothing yet: the first matrix comes from the seed, the second is 0."""
        add_lora(getattr(self, part), rank, alpha, seed)

    def save_adapter(self, folder: Path, part: Part = "text_encoders") -> None:
        """Write pytorch_lora_weights.safetensors, which the pipeline's own load_lora_weights reads."""
        save_lora(getattr(self, part), folder)

    def load_adapter(self, folder: Path, part: Part = "text_encoders") -> None:
        """Read what save_adapter wrote, frozen; see `generators.Generator`."""
        load_lora(getattr(self, part), folder)

    def denoising_losses(self, latents: Tensor, prompts: list[str], seeds: list[int]) -> Tensor:
        """(B,) losses of the UNet's own training, for latents (B, C, h, w); see `generators.PhotoLearner`."""
        noise = self._noise(seeds).float()
        noisy, timesteps, target = training_pair(self._training_scheduler, latents.to(noise), noise, seeds)
        if self._cache:
            self._cache.reuse = False
        text = tuple(part.to(self.unet.dtype) for part in self.prompt_encoder.encode_captions(prompts))
        prediction = self._run(self._call_unet, noisy.to(self.unet.dtype), timesteps, *text)
        return (prediction.float() - target).square().flatten(1).mean(1)

    @cached_property
    def _training_scheduler(self) -> Any:
        return training_scheduler(self._scheduler_config)

    @property
    def _guided(self) -> bool:
        return self.config.guidance_scale > 1

    def _guidance_text(self, prompts: list[str]) -> Text:
        """Return the text of B prompts, or of 2B with the negative prompt first when guidance is on."""
        if self._frozen_negative is None:
            repeated = [self.config.negative_prompt] * len(prompts) if self._guided else []
            text = self.prompt_encoder.encode([*repeated, *prompts])
        else:
            pairs = zip(self._frozen_negative, self.prompt_encoder.encode(prompts), strict=True)
            text = tuple(torch.cat([negative.expand_as(positive), positive]) for negative, positive in pairs)
        return tuple(part.to(self.unet.dtype) for part in text)

    def _noise(self, seeds: Sequence[int]) -> Tensor:
        """(B, C, h, w) standard normal, each sample from its own seed on the CPU."""
        noise = [torch.randn(self._latent_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(noise).to(self.device, self.unet.dtype)

    def _denoise(
        self, scheduler: Any, latents: Tensor, text: Text, steps: tuple[int, int], backprop_steps: int
    ) -> Tensor:
        """Take the steps from the first number to before the second."""
        first, num_steps = steps
        for step, timestep in enumerate(scheduler.timesteps[first:num_steps], first):
            with_gradient = torch.is_grad_enabled() and step >= num_steps - backprop_steps
            if self._cache:
                self._cache.reuse = not with_gradient and (step - first) % self.config.cache_interval > 0
            with torch.set_grad_enabled(with_gradient):
                scaled = scheduler.scale_model_input(latents, timestep)
                is_last = step + 1 == num_steps
                prediction = self._predict(scaled, timestep, text, self.gradient_checkpointing and not is_last)
                if is_last and num_steps < len(scheduler.timesteps):
                    return clean_latents(scheduler, prediction, step, scaled)
                latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        return latents

    def _predict(self, latents: Tensor, timestep: Tensor, text: Text, recompute: bool = False) -> Tensor:
        """The UNet's prediction, both guidance branches in one forward pass; recompute: keep no block's input.

        In two passes where only the positive branch has a gradient: the first step with gradient, the negative frozen.
        """

        def velocity(x: Tensor, t: Text) -> Tensor:
            run = recomputed(self._run) if recompute else self._run
            return run(self._call_unet, x, timestep, *t)

        latents = latents.to(self.unet.dtype)
        if not self._guided:
            return velocity(latents, text)
        if torch.is_grad_enabled() and not latents.requires_grad and self._frozen_negative is not None:
            of_negative, of_prompt = zip(*(part.chunk(2) for part in text), strict=True)
            with torch.no_grad():
                negative = velocity(latents, of_negative)
            positive = velocity(latents, of_prompt)
        else:
            negative, positive = velocity(torch.cat([latents, latents]), text).chunk(2)
        return negative + self.config.guidance_scale * (positive - negative)

    def _call_unet(self, latents: Tensor, timestep: Tensor, *text: Tensor, **options: Any) -> Any:
        return self.unet(latents, timestep, **unet_arguments(text), **options)

    def _run(self, model: Callable[..., Any], *inputs: Tensor) -> Tensor:
        """Run a model, compiled if the config says so: once for all batch sizes from 2, and only without a gradient."""
        if not self.config.compile:
            return model(*inputs, return_dict=False)[0]
        if torch.is_grad_enabled():
            with torch.compiler.set_stance("force_eager"):
                return model(*inputs, return_dict=False)[0]
        detached = [batch.detach() for batch in inputs]  # inputs that may have a gradient would be compiled again
        for batch in detached:
            if batch.ndim:
                torch._dynamo.maybe_mark_dynamic(batch, 0)
        return model(*detached, return_dict=False)[0]


def build(config: Config, device: torch.device | str) -> StableDiffusion:
    """Load the model.

    Raises:
        ValueError: the folder or hub id is missing, is of another class, or its weights are damaged or incomplete.
    """
    components = load_components(config.model, getattr(torch, config.dtype), config.revision)
    if config.few_step:
        fuse_few_step(components.unet, config.few_step)
    return StableDiffusion(config, components, device)


def build_tokenizers(config: Config) -> list[Any]:
    """Return one tokenizer per text encoder, without loading anything else.

    Raises:
        ValueError: the folder or hub id is missing or of another class, or a tokenizer is damaged.
    """
    return load_tokenizers(config.model, load_checked_index(config.model, config.revision), config.revision)
