"""A tiny random CLIP of each supported class, for tests and for benchmarks that need no trained one."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.eva import Eva, vit_pe_core_base_patch16_224
from timm.models.vision_transformer import VisionTransformer, vit_base_patch16_siglip_224
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

IMAGE_PX = 64
VISION = {
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "image_size": IMAGE_PX, "patch_size": None},
    "vit": {"layers": 2, "width": 32, "head_width": 8, "image_size": IMAGE_PX, "patch_size": 16},
}
CONTEXT_LENGTH = 24
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": IMAGE_PX}
TIMM = {"tiny_siglip": "ViT-B-16-SigLIP2", "tiny_pe_core": "PE-Core-B-16"}  # open_clip's config that is made small


@register_model
def tiny_siglip(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """The image tower of SigLIP and SigLIP 2: no class token, pooled by attention."""
    return vit_base_patch16_siglip_224(pretrained, **SMALL, **options)


@register_model
def tiny_pe_core(pretrained: bool = False, **options: Any) -> Eva:
    """The image tower of PE-Core: a class token, rotary positions, pooled by attention with the class token."""
    return vit_pe_core_base_patch16_224(pretrained, **SMALL, attn_pool_num_heads=4, **options)


def tiny_tokenizer() -> CLIPTokenizer:
    """One token a letter; the end token has the highest id, as in OpenAI's vocabulary."""
    letters = list(string.ascii_lowercase)
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=CONTEXT_LENGTH)


def padding_tokenizer(pad: str = "<pad>") -> PreTrainedTokenizerFast:
    """One token a letter, then an end token and padding, as SigLIP's; the first SigLIP pads with the end token."""
    tokens = dict.fromkeys([pad, "</s>", "<unk>", " ", *string.ascii_lowercase])
    tokenizer = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex(""), "isolated")
    end = ("</s>", tokenizer.token_to_id("</s>"))
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[end])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, eos_token="</s>", unk_token="<unk>")


def write_timm_backbone(folder: Path, tower: str, seed: int = 0) -> str:
    """As `write_backbone`, of a model whose image tower is timm's, with every setting but the sizes of the real one."""
    tokenizer = padding_tokenizer() if tower == "tiny_siglip" else tiny_tokenizer()
    config = open_clip.get_model_config(TIMM[tower])
    small_text = {"context_length": CONTEXT_LENGTH, "vocab_size": len(tokenizer), "width": 32, "heads": 2, "layers": 2}
    config["embed_dim"] = 32
    config["vision_cfg"] |= {"image_size": IMAGE_PX, "timm_model_name": tower}
    config["text_cfg"] |= small_text
    torch.manual_seed(seed)
    model = open_clip.CustomTextCLIP(**{key: value for key, value in config.items() if key != "custom_text"})
    return _written(folder, model, config, tokenizer, "bilinear" if tower == "tiny_pe_core" else "bicubic")


def write_backbone(folder: Path, vision: str, custom_text: bool = False, seed: int = 0) -> str:
    """A `local-dir:` folder with random weights; returns its open_clip name."""
    tokenizer = tiny_tokenizer()
    text: dict[str, Any] = {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": len(tokenizer),
        "width": 32,
        "heads": 2,
        "layers": 2,
    }
    config: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VISION[vision], "text_cfg": text}
    torch.manual_seed(seed)
    model = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):  # zero in a fresh tower, which would cut every residual branch off
            torch.nn.init.ones_(parameter)
    return _written(folder, model, config | {"custom_text": custom_text}, tokenizer)


def _written(
    folder: Path, model: torch.nn.Module, config: dict[str, Any], tokenizer: Any, interpolation: str = "bicubic"
) -> str:
    config["text_cfg"]["hf_tokenizer_name"] = "local"
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": interpolation}
    description = {"model_cfg": config, "preprocess_cfg": preprocess}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(description))
    tokenizer.save_pretrained(folder)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"
