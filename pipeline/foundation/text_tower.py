"""The diffusion model's text encoder begins as a CLIP text tower, as Stable Diffusion's does."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LAYER_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
TOP_NAMES = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


def text_encoder_from_open_clip(folder: Path, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text tower of an open_clip folder as transformers' CLIPTextModel, same weights."""
    source = load_file(folder / "open_clip_model.safetensors")
    width = source["positional_embedding"].shape[1]
    layers = 1 + max(int(key.split(".")[2]) for key in source if key.startswith("transformer.resblocks."))
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act="gelu",
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModel(config).eval()
    encoder.load_state_dict(converted(source))
    return encoder


def converted(source: dict[str, Tensor]) -> dict[str, Tensor]:
    target = {new: source[old].float() for old, new in TOP_NAMES.items()}
    for key, value in source.items():
        if key.startswith("transformer.resblocks."):
            index, name = key.removeprefix("transformer.resblocks.").split(".", 1)
            target.update({f"encoder.layers.{index}.{new}": v for new, v in renamed(name, value.float())})
    return target


def renamed(name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    if name.startswith("attn.in_proj_"):
        kind = name.removeprefix("attn.in_proj_")
        parts = zip(("q_proj", "k_proj", "v_proj"), value.chunk(3), strict=True)
        return [(f"self_attn.{part}.{kind}", chunk) for part, chunk in parts]
    stem, kind = name.rsplit(".", 1)
    return [(f"{LAYER_NAMES[stem]}.{kind}", value)]
