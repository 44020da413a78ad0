"""Random pipelines of a few thousand weights, one per class that is tested, for 16 px images."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

WORDS = ("<pad>", "<unk>", "<eos>", "a", "photo", "of", "the", "red", "next", "to", "kite", "boat", "clock", "cup")
WIDTH = 16
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %} the photo of"
HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}


def word_tokenizer(template: str | None = None, max_length: int = 300) -> Any:
    model = WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<eos>"}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **special)
    made.chat_template = template
    return made


def clip_text(tokenizer: Any, kind: Any = transformers.CLIPTextModel) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return kind(config).eval()


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=len(WORDS), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0
    )
    return transformers.T5EncoderModel(config).eval()


def decoder_layers(num_layers: int = 2) -> dict[str, Any]:
    """Settings of a small language model."""
    return {
        "vocab_size": len(WORDS),
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "bos_token_id": 2,
    }


def vae(latent_channels: int = 4, **others: Any) -> Any:
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=16,
        **others,
    ).eval()


def unet(**others: Any) -> Any:
    settings = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return diffusers.UNet2DConditionModel(**settings | others).eval()


def flow() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler()


def stable_diffusion(clip_tokenizer: Any) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip_text(clip_tokenizer),
        tokenizer=clip_tokenizer,
        unet=unet(),
        scheduler=diffusers.EulerAncestralDiscreteScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_lcm(clip_tokenizer: Any) -> Any:
    """Make a model with embedded guidance, as latent consistency models have."""
    parts = stable_diffusion(clip_tokenizer).components | {"unet": unet(time_cond_proj_dim=8)}
    return diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)


def stable_diffusion_xl(clip_tokenizer: Any) -> Any:
    """Make a pipeline whose second tokenizer pads with another token than the first one's, as published."""
    second_tokenizer = copy.deepcopy(clip_tokenizer)
    second_tokenizer.pad_token = "a"
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip_text(clip_tokenizer),
        text_encoder_2=clip_text(clip_tokenizer, transformers.CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer,
        tokenizer_2=second_tokenizer,
        unet=unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            use_linear_projection=True,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(),
    )


def stable_diffusion_3(clip_tokenizer: Any) -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * WIDTH,
        **HEADS,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=flow(),
        vae=vae(shift_factor=0.0, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_text(clip_tokenizer, transformers.CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer,
        text_encoder_2=clip_text(clip_tokenizer, transformers.CLIPTextModelWithProjection),
        tokenizer_2=clip_tokenizer,
        text_encoder_3=transformers.T5EncoderModel(
            transformers.T5Config(
                vocab_size=len(WORDS), d_model=2 * WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0
            )
        ),
        tokenizer_3=word_tokenizer(),
    )


def pixart_sigma(clip_tokenizer: Any) -> Any:
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
        use_additional_conditions=False,
        **HEADS,
    )
    return diffusers.PixArtSigmaPipeline(
        tokenizer=word_tokenizer(),
        text_encoder=t5(),
        vae=vae(),
        transformer=transformer.eval(),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def pixart_alpha(clip_tokenizer: Any) -> Any:
    """Make a pipeline of a class that is not in the table of tested ones."""
    return diffusers.PixArtAlphaPipeline(**pixart_sigma(clip_tokenizer).components)


def sana(clip_tokenizer: Any) -> Any:
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
        sample_size=16,
    )
    decoder = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "ResBlock"),
        decoder_block_types=("ResBlock", "ResBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.4,
    )
    config = transformers.Gemma2Config(**decoder_layers())
    return diffusers.SanaPipeline(
        tokenizer=word_tokenizer(),
        text_encoder=transformers.Gemma2Model(config).eval(),
        vae=decoder.eval(),
        transformer=transformer.eval(),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )


def flux(clip_tokenizer: Any, guidance_embeds: bool = True) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(2, 2, 4),
        **HEADS,
    )
    return diffusers.FluxPipeline(
        scheduler=flow(),
        vae=vae(shift_factor=0.0, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_text(clip_tokenizer),
        tokenizer=clip_tokenizer,
        text_encoder_2=t5(),
        tokenizer_2=word_tokenizer(),
        transformer=transformer.eval(),
    )


def flux_schnell(clip_tokenizer: Any) -> Any:
    return flux(clip_tokenizer, guidance_embeds=False)


def prx(clip_tokenizer: Any) -> Any:
    config = transformers.T5GemmaModuleConfig(**decoder_layers())
    encoder = transformers.T5GemmaConfig(encoder=config, is_encoder_decoder=False, vocab_size=len(WORDS))
    transformer = diffusers.PRXTransformer2DModel(
        patch_size=2,
        in_channels=4,
        context_in_dim=WIDTH,
        hidden_size=WIDTH,
        num_heads=2,
        depth=1,
        axes_dim=[4, 4],
        mlp_ratio=2.0,
    )
    return diffusers.PRXPipeline(
        transformer=transformer.eval(),
        scheduler=flow(),
        text_encoder=transformers.T5GemmaEncoderModel(encoder).encoder.eval(),
        tokenizer=word_tokenizer(max_length=32),
        vae=vae(shift_factor=0.0, use_quant_conv=False, use_post_quant_conv=False),
        default_sample_size=512,
    )


def z_image(clip_tokenizer: Any) -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=WIDTH,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[2, 2, 4],
        axes_lens=[1024, 64, 64],
    )
    return diffusers.ZImagePipeline(
        scheduler=flow(),
        vae=vae(shift_factor=0.0, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=transformers.Qwen3Model(transformers.Qwen3Config(**decoder_layers())).eval(),
        tokenizer=word_tokenizer(CHAT),
        transformer=transformer.eval(),
    )


def flux_2_klein(clip_tokenizer: Any, is_distilled: bool = False) -> Any:
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=False,
        **HEADS,
    )
    decoder = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    config = transformers.Qwen3Config(**decoder_layers(num_layers=28))
    return diffusers.Flux2KleinPipeline(
        scheduler=flow(),
        vae=decoder.eval(),
        text_encoder=transformers.Qwen3ForCausalLM(config).eval(),
        tokenizer=word_tokenizer(CHAT),
        transformer=transformer.eval(),
        is_distilled=is_distilled,
    )


def flux_2_klein_distilled(clip_tokenizer: Any) -> Any:
    return flux_2_klein(clip_tokenizer, is_distilled=True)


def flux_2_klein_long(clip_tokenizer: Any) -> Any:
    pipeline = flux_2_klein(clip_tokenizer)
    pipeline.tokenizer.model_max_length = 100_000
    return pipeline


def qwen_image(clip_tokenizer: Any) -> Any:
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        joint_attention_dim=WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(2, 2, 4),
        **HEADS,
    )
    decoder = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    text = decoder_layers()
    del text["head_dim"]
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = transformers.Qwen2_5_VLConfig(
        text_config=text | {"rope_scaling": rope, "rope_theta": 10000.0},
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
        },
    )
    return diffusers.QwenImagePipeline(
        scheduler=flow(),
        vae=decoder.eval(),
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=word_tokenizer(),
        transformer=transformer.eval(),
    )


MAKERS: dict[str, Callable[[Any], Any]] = {
    "StableDiffusionPipeline": stable_diffusion,
    "StableDiffusionXLPipeline": stable_diffusion_xl,
    "StableDiffusion3Pipeline": stable_diffusion_3,
    "PixArtSigmaPipeline": pixart_sigma,
    "SanaPipeline": sana,
    "PRXPipeline": prx,
    "ZImagePipeline": z_image,
    "FluxPipeline": flux,
    "Flux2KleinPipeline": flux_2_klein,
    "QwenImagePipeline": qwen_image,
}


def save(folder: Path, maker: Callable[[Any], Any], clip_tokenizer: Any) -> Path:
    """Write a random pipeline and return its folder.

    Weights that begin as zeros are random too, or prompts would have no effect. The encoder of PRX has the settings of
    a whole T5Gemma next to it, as published.
    """
    torch.manual_seed(0)
    pipeline = maker(clip_tokenizer)
    network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    for weight in network.parameters():
        weight.data.add_(torch.randn_like(weight), alpha=0.1)
    pipeline.save_pretrained(folder)
    if isinstance(pipeline, diffusers.PRXPipeline):
        transformers.T5GemmaConfig(encoder=pipeline.text_encoder.config).save_pretrained(folder / "text_encoder")
    return folder
