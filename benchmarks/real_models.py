"""Real-size models with random weights, built from their public configurations: nothing is downloaded.

A random network is as fast, and takes as much memory, as a trained one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tailorset.clip.model import Clip
from tailorset.generators.stable_diffusion import Components
from tailorset.llms.parts.dialogue_tokens import DialogueTokens
from tailorset.llms.transformers import Config as LlmConfig
from tailorset.llms.transformers import TransformersLLM, _precision

CHAT_TOKENIZER = Path(__file__).resolve().parents[1] / "models" / "foundation" / "toybox" / "llm"
RANDOM_BLOCK = 2**20  # numbers that fill an LLM's weights repeatedly

_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
}
_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}
_TEXT = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}


@dataclass(frozen=True)
class Diffusion:
    """The configurations of the parts of a StableDiffusionPipeline, or with text_encoder_2 of an XL one."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    scheduler: dict[str, Any]
    text_encoder_2: dict[str, Any] | None = None


SD_1_5 = Diffusion(
    unet=_UNET | {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    vae=_VAE | {"sample_size": 512},
    text_encoder=_TEXT
    | {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
        "projection_dim": 768,
    },
    scheduler=_SCHEDULER,
)
SD_2_1 = Diffusion(
    unet=_UNET
    | {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    vae=_VAE | {"sample_size": 768},
    text_encoder=_TEXT
    | {  # 23 of OpenCLIP ViT-H's 24 layers: the penultimate one is the output
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 512,
    },
    scheduler=_SCHEDULER | {"prediction_type": "v_prediction"},
)
SDXL = Diffusion(
    unet={
        "in_channels": 4,
        "out_channels": 4,
        "sample_size": 128,
        "layers_per_block": 2,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
        "up_block_types": (*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    vae=_VAE | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
    text_encoder=SD_1_5.text_encoder,
    text_encoder_2=_TEXT
    | {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "hidden_act": "gelu",
        "projection_dim": 1280,
    },
    scheduler=_SCHEDULER,
)
QWEN_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class MeasuredModels:
    """The measured models; discriminator and backbone are architectures of open_clip's."""

    diffusion: Diffusion = SD_2_1
    discriminator: str = "ViT-B-32-quickgelu"
    backbone: str = "RN50-quickgelu"
    llm: Mapping[str, Any] = field(default_factory=lambda: QWEN_7B)


def random_unet(config: dict[str, Any]) -> nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**config)


def random_vae(config: dict[str, Any]) -> nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(**config)


def random_text_encoder(config: dict[str, Any]) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**config))


def random_second_text_encoder(config: dict[str, Any]) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(CLIPTextConfig(**config))


def random_open_clip(name: str) -> nn.Module:
    """A model on the device of the surrounding `torch.device`; open_clip warns that no weights were loaded."""
    import open_clip

    model = open_clip.create_model(name, device=torch.get_default_device())
    for key, weight in model.named_parameters():
        if key.endswith("bn3.weight"):  # zero at first, which cuts a residual branch off; not zero in a trained network
            nn.init.ones_(weight)
    return model


def random_chat_model(config: Mapping[str, Any]) -> nn.Module:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**config))


def random_components(config: Diffusion, unet_dtype: torch.dtype, device: torch.device) -> Components:
    """The parts of StableDiffusion, with CLIP's own tokenizer."""
    with torch.device(device):
        encoders = {"text_encoder": random_text_encoder(config.text_encoder)}
        if config.text_encoder_2:
            encoders["text_encoder_2"] = random_second_text_encoder(config.text_encoder_2)
        return Components(
            [clip_tokenizer() for _ in encoders],
            nn.ModuleDict(encoders),
            random_unet(config.unet).to(unet_dtype),
            random_vae(config.vae),
            config.scheduler,
        )


def clip_tokenizer() -> Any:
    """The tokenizer of Stable Diffusion's text encoders, from the vocabulary in open_clip."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    known = SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {special.get(token, token): index for token, index in known.encoder.items()}
    return CLIPTokenizer(vocab=vocab, merges=list(known.bpe_ranks), model_max_length=77)


def random_clip(name: str, device: torch.device) -> Clip:
    import open_clip

    with torch.device(device):
        model = random_open_clip(name)
    return Clip(model, open_clip.get_tokenizer(name), open_clip.get_model_config(name), device)


def random_llm(config: Mapping[str, Any], settings: LlmConfig, device: torch.device) -> TransformersLLM:
    """Loaded and quantised as the plug-in does it, one layer of it; all other layers are copies of it.

    The toybox's chat tokenizer writes the prompts: its ids are a small part of this vocabulary.
    """
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        shapes = random_chat_model({**config, "num_hidden_layers": 1}).state_dict()
    block = torch.randn(RANDOM_BLOCK, device=device).mul(0.02).to(torch.bfloat16)
    weights = {key: _filled(key, value, block) for key, value in shapes.items()}
    model = Qwen2ForCausalLM.from_pretrained(
        None,
        config=Qwen2Config(**{**config, "num_hidden_layers": 1}),
        state_dict=weights,
        **_precision(settings, device),
    )
    num_layers = config["num_hidden_layers"]
    for index in range(1, num_layers):
        layer = deepcopy(model.model.layers[0])
        layer.self_attn.layer_idx = index
        model.model.layers.append(layer)
    model.config.num_hidden_layers, model.config.layer_types = num_layers, model.config.layer_types * num_layers
    tokens = DialogueTokens(AutoTokenizer.from_pretrained(CHAT_TOKENIZER), str(CHAT_TOKENIZER))
    return TransformersLLM(settings, model.eval(), tokens)


def _filled(key: str, like: Tensor, block: Tensor) -> Tensor:
    if "norm" in key:
        return torch.ones(like.shape, dtype=block.dtype, device=block.device)
    return block.repeat(math.ceil(like.numel() / len(block)))[: like.numel()].view(like.shape)


@dataclass(frozen=True)
class PublishedWeights:
    """Public weights of a model: their count, and the shapes of some tensors."""

    build: Callable[[], nn.Module]
    num_parameters: int
    shapes: Mapping[str, tuple[int, ...]]


_ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
_LAST_TEXT = "encoder.layers.{}.self_attn.q_proj.weight"
_BLOCK = "visual.transformer.resblocks.{}.mlp.c_fc.weight"
PUBLISHED = {
    "SD 1.5 UNet": PublishedWeights(lambda: random_unet(SD_1_5.unet), 859_520_964, {_ATTENTION: (320, 768)}),
    "SD 1.5 text encoder": PublishedWeights(
        lambda: random_text_encoder(SD_1_5.text_encoder), 123_060_480, {_LAST_TEXT.format(11): (768, 768)}
    ),
    "SD 2.1 UNet": PublishedWeights(lambda: random_unet(SD_2_1.unet), 865_910_724, {_ATTENTION: (320, 1024)}),
    "SD 2.1 text encoder": PublishedWeights(
        lambda: random_text_encoder(SD_2_1.text_encoder), 340_387_840, {_LAST_TEXT.format(22): (1024, 1024)}
    ),
    "SDXL UNet": PublishedWeights(
        lambda: random_unet(SDXL.unet),
        2_567_463_684,
        {
            "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k.weight": (1280, 2048),
            "add_embedding.linear_1.weight": (1280, 2816),
        },
    ),
    "SDXL second text encoder": PublishedWeights(
        lambda: random_second_text_encoder(SDXL.text_encoder_2 or {}),
        694_659_840,
        {f"text_model.{_LAST_TEXT.format(31)}": (1280, 1280), "text_projection.weight": (1280, 1280)},
    ),
    "SD VAE": PublishedWeights(
        lambda: random_vae(SD_2_1.vae), 83_653_863, {"decoder.up_blocks.3.resnets.2.conv2.weight": (128, 128, 3, 3)}
    ),
    "CLIP RN50": PublishedWeights(
        lambda: random_open_clip("RN50-quickgelu"), 102_007_137, {"visual.attnpool.positional_embedding": (50, 2048)}
    ),
    "CLIP RN101": PublishedWeights(
        lambda: random_open_clip("RN101-quickgelu"), 119_688_033, {"visual.layer3.22.conv3.weight": (1024, 256, 1, 1)}
    ),
    "CLIP ViT-B/32": PublishedWeights(
        lambda: random_open_clip("ViT-B-32-quickgelu"), 151_277_313, {_BLOCK.format(11): (3072, 768)}
    ),
    "CLIP ViT-B/16": PublishedWeights(
        lambda: random_open_clip("ViT-B-16"), 149_620_737, {_BLOCK.format(11): (3072, 768)}
    ),
    "CLIP ViT-L/14": PublishedWeights(
        lambda: random_open_clip("ViT-L-14"), 427_616_513, {_BLOCK.format(23): (4096, 1024)}
    ),
    "Qwen2.5 7B": PublishedWeights(
        lambda: random_chat_model(QWEN_7B),
        7_615_616_512,
        {"model.layers.27.mlp.down_proj.weight": (3584, 18944), "lm_head.weight": (152064, 3584)},
    ),
}


def check_shapes(name: str) -> int:
    """Build a published model on the meta device, which holds no numbers; return its number of parameters.

    Raises: AssertionError if its size or a tensor is not as published.
    """
    published = PUBLISHED[name]
    with torch.device("meta"):
        module = published.build()
    num_parameters = sum(weight.numel() for weight in module.parameters())
    assert num_parameters == published.num_parameters, f"{name}: {num_parameters:,} parameters"
    tensors = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    for key, shape in published.shapes.items():
        assert tensors.get(key) == shape, f"{name}: {key} is {tensors.get(key)}"
    return num_parameters
