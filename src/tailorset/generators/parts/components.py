"""The parts of a pipeline from a folder or hub id: safetensors only, checked before the first is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import nn

from tailorset.generators.parts.pipeline_config import INDEX, parts_of
from tailorset.messages import first_line
from tailorset.storage import checksums
from tailorset.storage.hub import NamedModel

GENERATOR_WEIGHTS_REMEDY = (
    f"{checksums.RESTORE} or give generator.model another folder"
    " or hub id (a hub id is downloaded only with HF_HUB_OFFLINE=0)"
)


# Classes of text encoders, by pipeline class and name of the part.
TEXT_ENCODERS = {
    "StableDiffusionPipeline": {"text_encoder": "CLIPTextModel"},
    "StableDiffusionXLPipeline": {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"},
}

MAX_TEXT = 10**6  # tokens; transformers assumes 10^30 if a tokenizer's config sets no limit
DEFAULTS: dict[str, dict[str, Any]] = {  # of diffusers, for keys that a config omits
    "unet": {"block_out_channels": (320, 640, 1280, 1280), "in_channels": 4},
    "vae": {"block_out_channels": (64,)},
}


class FewStep(NamedModel):
    """A LoRA in `file` of a folder or hub repository, in the layout of diffusers or of kohya."""

    in_full: ClassVar[str] = "its folder or repository, and the file in `file`"
    file: str = Field(pattern=r"\.safetensors$")

    @property
    def title(self) -> str:
        return f"{self.model}, {self.file}"

    @property
    def needed_files(self) -> tuple[str, ...]:
        return (self.file,)


class Components(NamedTuple):
    """The parts of a pipeline that sampling needs.

    tokenizers: one per text encoder. zero_negative: an empty negative prompt is encoded as zeros.
    """

    tokenizers: list[Any]
    text_encoders: nn.ModuleDict
    unet: nn.Module
    vae: nn.Module
    scheduler_config: dict[str, Any]
    zero_negative: bool = False


def load_components(model: str, unet_dtype: torch.dtype, revision: str | None = None) -> Components:
    """Read all parts from a folder or hub id, all but the UNet in float32; only safetensors are read.

    Tensors that a file lacks are refused: diffusers and transformers fill them with random numbers and only warn.

    Raises:
        ValueError: a part is missing or damaged; names the part, its fault and the remedy.
    """
    import transformers
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    pinned = {"revision": revision}
    index = load_checked_index(model, revision)
    encoders = TEXT_ENCODERS[index["_class_name"]]
    check_files(Path(model), (*encoders, "unet", "vae"))
    vae = load_weights(model, "vae", AutoencoderKL, torch.float32, revision)
    unet = load_weights(model, "unet", UNet2DConditionModel, unet_dtype, revision)
    _check_inputs(model, unet.config, vae.config)
    return Components(
        load_tokenizers(model, index, revision),
        nn.ModuleDict(
            {
                part: load_weights(model, part, getattr(transformers, name), torch.float32, revision)
                for part, name in encoders.items()
            }
        ),
        unet,
        vae,
        guarded(model, "scheduler", lambda: DDIMScheduler.load_config(model, subfolder="scheduler", **pinned)),
        index.get("force_zeros_for_empty_prompt", index["_class_name"] == "StableDiffusionXLPipeline"),
    )


def check_configs(folder: Path, image_px: int) -> None:
    """Check that this plug-in can draw with a folder's configs, without loading a framework.

    Raises:
        ValueError: the pipeline, its VAE or the size of the images is not supported, or a config is damaged.
    """

    def read(file: str) -> dict[str, Any]:
        return guarded(str(folder), file, lambda: dict(json.loads((folder / file).read_text(encoding="utf-8"))))

    _check_class(str(folder), read(INDEX))
    unet, vae = (DEFAULTS[part] | read(f"{part}/config.json") for part in ("unet", "vae"))
    _check_inputs(str(folder), unet, vae)
    latent_shape(image_px, unet, vae)


def empty_module(folder: Path, part: str, kind: Any) -> nn.Module:
    """Build the module of a part's config, without weights.

    Raises:
        ValueError: the config is missing or damaged.
    """
    from accelerate import init_empty_weights

    def build() -> Any:
        with init_empty_weights():
            return kind.from_config(kind.load_config(folder / part))

    return guarded(str(folder), part, build)


def load_index(model: str, revision: str | None = None) -> dict[str, Any]:
    """Return the content of a pipeline's model_index.json.

    Raises:
        ValueError: it cannot be loaded.
    """
    from diffusers import DiffusionPipeline

    return guarded(model, INDEX, lambda: DiffusionPipeline.load_config(model, revision=revision))


def load_checked_index(model: str, revision: str | None = None) -> dict[str, Any]:
    """Return what `load_index` does, for a class that is drawn here.

    Raises:
        ValueError: it cannot be loaded, or is of another class.
    """
    index = load_index(model, revision)
    _check_class(model, index)
    return index


def load_tokenizers(model: str, index: Mapping[str, Any], revision: str | None = None) -> list[Any]:
    """Return one tokenizer per text encoder of a pipeline; index: its model_index.json.

    Raises:
        ValueError: one cannot be loaded.
    """
    listed = sorted(parts_of(index).items())
    kinds = {part: kind for part, (_, kind) in listed if part.startswith(("tokenizer", "processor"))}
    if not kinds:
        raise ValueError(f"generator.model {model!r} lists no tokenizer in {INDEX}: name another model")
    return [_tokenizer(model, part, kind, revision) for part, kind in kinds.items()]


def fuse_few_step(unet: Any, few_step: FewStep) -> None:
    """Add the LoRA to the UNet's own weights.

    Raises:
        ValueError: it cannot be read, or does not fit this UNet in every part.
    """
    from diffusers import StableDiffusionPipeline

    def load() -> None:
        options = {"weight_name": few_step.file, "revision": few_step.revision, "use_safetensors": True}
        weights, alphas = StableDiffusionPipeline.lora_state_dict(few_step.model, unet_config=unet.config, **options)
        if others := sorted(key for key in weights if not key.startswith("unet.")):
            raise ValueError(f"not all of it is for a UNet, for example {others[0]}")
        StableDiffusionPipeline.load_lora_into_unet(weights, alphas, unet)
        num_layers, adapted = len(weights) // 2, sum(hasattr(module, "lora_A") for module in unet.modules())
        if adapted != num_layers:
            raise ValueError(f"it is for {num_layers} layers, and this UNet has {adapted} of them")

    guarded(few_step.title, "LoRA", load, "generator.few_step")
    unet.fuse_lora()
    unet.unload_lora()


def latent_shape(image_px: int, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> tuple[int, int, int]:
    """(C, h, w) of the latents of one image, by the configs of UNet and VAE.

    Raises:
        ValueError: the model cannot draw this size; names the multiple.
    """
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    smallest = factor * 2 ** (len(unet["block_out_channels"]) - 1)
    if image_px % smallest:
        raise ValueError(f"generator.image_px is {image_px}: choose a multiple of {smallest}, which this model draws")
    return unet["in_channels"], image_px // factor, image_px // factor


def _check_class(model: str, index: Mapping[str, Any]) -> None:
    if (kind := index.get("_class_name")) not in TEXT_ENCODERS:
        raise ValueError(
            f"generator.model {model!r} is a {kind}, but this plug-in draws with {' and '.join(TEXT_ENCODERS)}; set"
            " generator.name: diffusers to draw with it untuned"
        )


def _check_inputs(model: str, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    """Refuse features that would be ignored silently: a mean of the latents, and embedded guidance."""
    faults = {
        "its VAE has latents_mean, which this plug-in does not apply": vae.get("latents_mean"),
        "the guidance of its UNet is embedded, which this plug-in does not pass on": unet.get("time_cond_proj_dim"),
    }
    if fault := next((fault for fault, value in faults.items() if value), None):
        raise ValueError(f"generator.model {model!r}: {fault}; set generator.name: diffusers to draw with it untuned")


def _tokenizer(model: str, part: str, kind: str, revision: str | None) -> Any:
    """Load a tokenizer, or that of a processor; refuse what transformers silently makes up for missing files."""
    import transformers

    def load() -> Any:
        if not hasattr(transformers, kind):
            raise ValueError(f"the transformers library has no {kind}")
        loaded = getattr(transformers, kind).from_pretrained(model, subfolder=part, revision=revision)
        tokenizer = getattr(loaded, "tokenizer", loaded)
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            raise ValueError("its vocabulary is missing")
        if isinstance(tokenizer, transformers.CLIPTokenizer) and tokenizer.model_max_length > MAX_TEXT:
            raise ValueError("its tokenizer_config.json has no model_max_length, which is 77 for a CLIP")
        return tokenizer

    return guarded(model, part, load)


def load_weights(model: str, part: str, kind: Any, dtype: torch.dtype, revision: str | None = None) -> nn.Module:
    """Load the module in a part's folder.

    Raises:
        ValueError: it cannot be read, or a tensor is missing.
    """
    folder = Path(model) / part  # a path of its own, as diffusers loads the encoder of PRX without regard to subfolders
    source, place = (str(folder), {}) if folder.is_dir() else (model, {"subfolder": part})
    options = place | {
        "revision": revision,
        "use_safetensors": True,
        "output_loading_info": True,
        "dtype": dtype,
    }
    module, info = guarded(model, part, lambda: kind.from_pretrained(source, **options))
    lacking = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if lacking:
        raise ValueError(
            f"{model}/{part}: {len(lacking)} tensors are missing, {lacking[0]} first; {GENERATOR_WEIGHTS_REMEDY}"
        )
    return module


def check_files(folder: Path, parts: Iterable[str]) -> None:
    """Check a local folder completely before the first part is loaded; a hub id has nothing to check.

    Raises:
        ValueError: a part has no safetensors, or a file is damaged; names the first.
    """
    from safetensors import SafetensorError, safe_open

    checksums.check(folder, GENERATOR_WEIGHTS_REMEDY)
    for part in parts if folder.is_dir() else ():
        files = sorted(folder.joinpath(part).glob("*.safetensors"))
        if not files:
            raise ValueError(f"{folder / part} has no .safetensors weights; {GENERATOR_WEIGHTS_REMEDY}")
        for file in files:
            try:
                with safe_open(file, framework="pt"):
                    pass
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{file} is truncated or damaged ({error}); {GENERATOR_WEIGHTS_REMEDY}") from error


def guarded(model: str, part: str, load: Callable[[], Any], setting: str = "generator.model") -> Any:
    """Return what `load` returns.

    Raises:
        ValueError: it cannot be read; names the part, its fault and the remedy.
    """
    from safetensors import SafetensorError

    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{setting} {model!r}: {part} cannot be loaded ({first_line(error)}); {GENERATOR_WEIGHTS_REMEDY}"
        ) from error
