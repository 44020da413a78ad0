"""One denoising step of larger generators with random weights: weights, operations, memory and seconds.

All but the seconds come from a dry run on fake tensors, which hold no numbers. To be timed, the network of a step is
built with one random tensor per shape of its weights: the same work in a fraction of the memory. Nothing is downloaded.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from real_models import SDXL, Diffusion, random_second_text_encoder, random_text_encoder, random_unet, random_vae
from timing import timed_call
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tailorset.compute.flops import flop_counter
from tailorset.compute.memory import free_memory
from tailorset.messages import first_line

DTYPE = torch.bfloat16  # of the network of a step
WEIGHT_SCALE = 0.02  # of random weights
PRX_512: Mapping[str, Any] = {
    "in_channels": 16,
    "patch_size": 2,
    "context_in_dim": 2304,
    "hidden_size": 1792,
    "mlp_ratio": 3.5,
    "num_heads": 28,
    "depth": 16,
    "axes_dim": [32, 32],
}
T5_GEMMA_2B: Mapping[str, Any] = {
    "vocab_size": 256_000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
}
FLUX_VAE: Mapping[str, Any] = SDXL.vae | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
KLEIN_4B: Mapping[str, Any] = {
    "in_channels": 128,
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "joint_attention_dim": 3 * 2560,  # states after three layers of the text encoder
    "guidance_embeds": False,
}
QWEN3_4B: Mapping[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class HeldPart:
    """Constructor of a part of a generator; dtype: of its weights in the plug-in."""

    build: Callable[[], nn.Module]
    dtype: torch.dtype = DTYPE


@dataclass(frozen=True)
class GeneratorShape:
    """A generator, and one denoising step of one image.

    passes: predictions per step, two with classifier-free guidance. network: makes them; inputs: arguments of its call.
    """

    title: str
    image_px: int
    passes: int
    network: HeldPart
    others: Mapping[str, HeldPart]
    inputs: Callable[[], dict[str, Any]]

    @property
    def parts(self) -> dict[str, HeldPart]:
        return {"network": self.network, **self.others}


def sdxl(config: Diffusion = SDXL, image_px: int = 1024) -> GeneratorShape:
    """Stable Diffusion XL with guidance, as the plug-in stable_diffusion holds it."""
    latent, second = image_px // 8, config.text_encoder_2 or {}
    width, pooled = config.unet["cross_attention_dim"], second["projection_dim"]

    def inputs() -> dict[str, Any]:
        conditions = {"text_embeds": torch.randn(2, pooled), "time_ids": torch.randn(2, 6)}
        states = torch.randn(2, 77, width)
        return {
            "sample": torch.randn(2, config.unet["in_channels"], latent, latent),
            "timestep": torch.ones(1),
            "encoder_hidden_states": states,
            "added_cond_kwargs": conditions,
        }

    others = {
        "text encoder": HeldPart(partial(random_text_encoder, config.text_encoder), torch.float32),
        "second text encoder": HeldPart(partial(random_second_text_encoder, second), torch.float32),
        "VAE": HeldPart(partial(random_vae, config.vae), torch.float32),
    }
    return GeneratorShape("SDXL", image_px, 2, HeldPart(partial(random_unet, config.unet)), others, inputs)


def prx_512(
    network: Mapping[str, Any] = PRX_512,
    encoder: Mapping[str, Any] = T5_GEMMA_2B,
    vae: Mapping[str, Any] = FLUX_VAE,
    image_px: int = 512,
) -> GeneratorShape:
    """PRX with guidance and 256 tokens of text."""

    def build() -> nn.Module:
        from diffusers import PRXTransformer2DModel

        return PRXTransformer2DModel(**network)

    def build_encoder() -> nn.Module:
        from transformers import T5GemmaConfig, T5GemmaEncoderModel, T5GemmaModuleConfig

        settings = T5GemmaConfig(
            encoder=T5GemmaModuleConfig(**encoder), is_encoder_decoder=False, vocab_size=encoder["vocab_size"]
        )
        return T5GemmaEncoderModel(settings).encoder

    def inputs() -> dict[str, Any]:
        return {
            "hidden_states": torch.randn(2, network["in_channels"], image_px // 8, image_px // 8),
            "timestep": torch.ones(2),
            "encoder_hidden_states": torch.randn(2, 256, network["context_in_dim"]),
            "attention_mask": torch.ones(2, 256, dtype=torch.bool),
        }

    others = {"text encoder": HeldPart(build_encoder), "VAE": HeldPart(partial(random_vae, dict(vae)), torch.float32)}
    return GeneratorShape("PRX-512", image_px, 2, HeldPart(build), others, inputs)


def flux_2_klein(
    network: Mapping[str, Any] = KLEIN_4B,
    encoder: Mapping[str, Any] = QWEN3_4B,
    vae: Mapping[str, Any] | None = None,
    image_px: int = 1024,
) -> GeneratorShape:
    """FLUX.2 klein, distilled: no guidance, 512 tokens of text, a token per 16 x 16 pixels."""

    def build() -> nn.Module:
        from diffusers import Flux2Transformer2DModel

        return Flux2Transformer2DModel(**network)

    def build_encoder() -> nn.Module:
        from transformers import Qwen3Config, Qwen3ForCausalLM

        return Qwen3ForCausalLM(Qwen3Config(**encoder))

    def build_vae() -> nn.Module:
        from diffusers import AutoencoderKLFlux2

        return AutoencoderKLFlux2(**(vae or {}))

    def inputs() -> dict[str, Any]:
        tokens = (image_px // 16) ** 2
        return {
            "hidden_states": torch.randn(1, tokens, network["in_channels"]),
            "timestep": torch.ones(1),
            "encoder_hidden_states": torch.randn(1, 512, network["joint_attention_dim"]),
            "img_ids": torch.zeros(tokens, 4),
            "txt_ids": torch.zeros(512, 4),
        }

    others = {"text encoder": HeldPart(build_encoder), "VAE": HeldPart(build_vae, torch.float32)}
    return GeneratorShape("FLUX.2 klein 4B", image_px, 1, HeldPart(build), others, inputs)


def larger_generators() -> dict[str, GeneratorShape]:
    return {"sdxl": sdxl(), "prx_512": prx_512(), "flux_2_klein": flux_2_klein()}


def dry_run(shape: GeneratorShape) -> dict[str, Any]:
    """Figures of a generator: parameters and bytes of each part, FLOPs of a step, most bytes of its activations."""
    parts = {}
    for name, part in shape.parts.items():
        with torch.device("meta"):
            parameters = sum(weight.numel() for weight in part.build().parameters())
        parts[name] = {"parameters": parameters, "bytes": parameters * part.dtype.itemsize}
    with FakeTensorMode(), default_dtype(shape.network.dtype), torch.no_grad():
        network, inputs = shape.network.build().eval(), shape.inputs()
        live = LiveBytes([*network.parameters(), *network.buffers(), *tensors_of(inputs)])
        with flop_counter() as counter, live:
            network(**inputs)
    return {
        "title": shape.title,
        "image_px": shape.image_px,
        "passes": shape.passes,
        "parts": parts,
        "flops": counter.get_total_flops(),
        "activation_bytes": live.peak,
    }


def timed_step(shape: GeneratorShape, device: torch.device, repetitions: int) -> dict[str, Any]:
    """Median seconds of a step after a first one, or the reason for having none; a CPU uses float32."""
    dtype = torch.float32 if device.type == "cpu" else shape.network.dtype
    try:
        with torch.device(device), default_dtype(dtype), torch.inference_mode():
            network, inputs = with_shared_weights(shape.network.build, device).eval(), shape.inputs()
            work = partial(network, **inputs)
            work()
            return {"seconds": median(timed_call(work, device) for _ in range(repetitions))}
    except (torch.OutOfMemoryError, MemoryError) as error:
        return {"reason": f"out of memory: {first_line(error)}"}
    finally:
        free_memory()


def with_shared_weights(build: Callable[[], nn.Module], device: torch.device) -> nn.Module:
    """Build a network on a device in which weights of one shape and type are one random tensor.

    A step takes as long as with weights of their own: those that matter do not fit a cache. Buffers are computed.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network = build()
    shared: dict[tuple[torch.Size, torch.dtype], nn.Parameter] = {}
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            key = (weight.shape, weight.dtype)
            if key not in shared:
                values = torch.randn(weight.shape, dtype=weight.dtype, device=device) * WEIGHT_SCALE
                shared[key] = nn.Parameter(values, requires_grad=False)
            setattr(module, name, shared[key])
    return network


class LiveBytes(TorchDispatchMode):
    """Most bytes at once of the tensors that operations return, apart from those that were there before."""

    def __init__(self, before: list[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._held = {tensor.untyped_storage()._cdata for tensor in before}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_of(result):
            self._hold(tensor.untyped_storage())
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._held:
            self._held.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, storage._cdata, storage.nbytes())

    def _release(self, key: int, size: int) -> None:
        self._held.discard(key)
        self.now -= size


def tensors_of(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors of floats have this dtype, as those of a model that is loaded with it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
