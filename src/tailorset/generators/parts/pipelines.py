"""Whole text-to-image pipelines of diffusers: the class that model_index.json names; no code of a model is run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tailorset.generators.parts.components import (
    check_files,
    empty_module,
    guarded,
    load_index,
    load_tokenizers,
    load_weights,
)
from tailorset.generators.parts.pipeline_config import INDEX, LEFT_OUT, parts_of

NEEDED = {"prompt", "height", "width", "num_inference_steps"}  # arguments of every call that draws from text
OTHER_INPUTS = {"image", "control_image", "mask_image", "video", "num_frames"}  # of calls that need or make other media
DRAWING = ("unet", "transformer", "vae")


def load_pipeline(model: str, revision: str | None, dtype: torch.dtype) -> Any:
    """Load a pipeline from a folder or hub id, its VAE in float32; only safetensors are read.

    Raises:
        ValueError: it is not a text-to-image pipeline, or a part is missing or damaged; names it and the remedy.
    """
    from diffusers import DiffusionPipeline

    index = load_index(model, revision)
    _text_to_image_class(model, index)
    folder, kinds = _folder(model, revision), networks(index)
    check_files(folder, kinds)
    parts = {
        part: load_weights(str(folder), part, kind, torch.float32 if part == "vae" else dtype)
        for part, kind in kinds.items()
    }
    options: dict[str, Any] = dict.fromkeys(part for part in LEFT_OUT if part in index)
    if "requires_safety_checker" in index:
        options["requires_safety_checker"] = False
    options |= {"use_safetensors": True, "trust_remote_code": False}
    pipeline = guarded(model, "pipeline", lambda: DiffusionPipeline.from_pretrained(folder, **parts, **options))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def empty_pipeline(folder: Path) -> Any:
    """Build the pipeline of a folder from its configs: network and VAE without weights, nothing that reads texts.

    Raises:
        ValueError: it is not a text-to-image pipeline, or a config is missing or damaged; names it and the remedy.
    """
    index = load_index(str(folder))
    kind, kinds = _text_to_image_class(str(folder), index), networks(index)
    values: dict[str, Any] = {name: None if isinstance(value, list) else value for name, value in index.items()}
    values |= {part: empty_module(folder, part, kinds[part]) for part in DRAWING if part in kinds}
    values |= {"scheduler": _scheduler(folder, index), "requires_safety_checker": False}
    return guarded(str(folder), "pipeline", lambda: kind(**fitting(kind.__init__, values)))


def load_limited_tokenizers(model: str, revision: str | None) -> list[Any]:
    """Return one tokenizer per text encoder, each with the limit at which the pipeline cuts its tokens.

    Raises:
        ValueError: it is not a text-to-image pipeline, or a tokenizer cannot be loaded.
    """
    index = load_index(model, revision)
    call = _text_to_image_class(model, index).__call__
    cut = inspect.signature(call).parameters.get("max_sequence_length")
    tokenizers = load_tokenizers(model, index, revision)
    if cut:
        for tokenizer in tokenizers:
            limit = cut.default - _num_template_tokens(tokenizer)
            tokenizer.model_max_length = min(tokenizer.model_max_length, limit)
    return tokenizers


def fitting(function: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments that a function has."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if name in known}


class DecoderOutOfMemory(RuntimeError):
    """Memory ran out in a VAE; Sana's pipeline would catch torch's own error and go on without an image."""

    def __init__(self, inner_exception: torch.OutOfMemoryError) -> None:
        super().__init__(str(inner_exception))
        self.inner_exception = inner_exception  # read by `compute.memory`


def guard_decoder(vae: Any) -> None:
    """Let the VAE take latents of any dtype, as its weights stay in float32, and report where it runs out of memory."""
    decode = vae.decode

    def guarded_decode(latents: Tensor, *others: Any, **options: Any) -> Any:
        try:
            return decode(latents.to(vae.dtype), *others, **options)
        except torch.OutOfMemoryError as error:
            raise DecoderOutOfMemory(error) from error

    vae.decode = guarded_decode


def _scheduler(folder: Path, index: Mapping[str, Any]) -> Any:
    import diffusers

    def load() -> Any:
        return getattr(diffusers, index["scheduler"][1]).from_pretrained(folder / "scheduler")

    return guarded(str(folder), "scheduler", load)


def _folder(model: str, revision: str | None) -> Path:
    """Return the folder of a pipeline, downloaded first if it comes from the hub and is not there yet."""
    from diffusers import DiffusionPipeline
    from huggingface_hub import constants

    if Path(model).is_dir():
        return Path(model)
    options = {
        "revision": revision,
        "use_safetensors": True,
        "trust_remote_code": False,
        "safety_checker": None,
        "local_files_only": constants.HF_HUB_OFFLINE,
    }
    return Path(guarded(model, "download", lambda: DiffusionPipeline.download(model, **options)))


def _text_to_image_class(model: str, index: Mapping[str, Any]) -> Any:
    import diffusers
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    name = index.get("_class_name")
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(
            f"generator.model {model!r} needs the pipeline {name!r}, which diffusers {diffusers.__version__} does not"
            " have, and code from model repositories is never run: update diffusers, or name another model"
        )
    arguments = set(inspect.signature(kind.__call__).parameters)
    is_listed = kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()
    if not arguments >= NEEDED or (arguments & OTHER_INPUTS and not is_listed):
        raise ValueError(
            f"generator.model {model!r} is a {name}, which is not a text-to-image pipeline: name a model that draws"
            " images from prompts alone"
        )
    _check_parts(model, index, kind)
    return kind


def _check_parts(model: str, index: Mapping[str, Any], pipeline: Any) -> None:
    """Refuse a pipeline without a part that its class needs, or with one whose class no library has."""
    import diffusers
    import transformers

    parts, optional = parts_of(index), set(pipeline._optional_components)
    parameters = list(inspect.signature(pipeline.__init__).parameters.values())[1:]
    for part in (one.name for one in parameters if one.default is one.empty and one.name not in LEFT_OUT):
        source = index.get(part)
        reads_text = part.startswith(("text_encoder", "tokenizer"))  # as every image here does
        may_lack = part in optional and not reads_text and source in (None, [None, None])
        if part not in parts and not may_lack:
            raise ValueError(
                f"generator.model {model!r}: its {part} in {INDEX} is {source!r}, not a library and a class: download"
                " it again, or name another model"
            )
    for part in (one.name for one in parameters if one.name in parts):
        library, name = parts[part]
        if not _is_known(library, name):
            raise ValueError(
                f"generator.model {model!r}: its {part} is a {name} of {library}, which diffusers"
                f" {diffusers.__version__} and transformers {transformers.__version__} do not have, and code from model"
                " repositories is never run: update them, or name another model"
            )


def _is_known(library: str, name: str) -> bool:
    import diffusers
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers}
    return hasattr(libraries[library], name) if library in libraries else hasattr(diffusers.pipelines, library)


def networks(index: Mapping[str, Any]) -> dict[str, type[nn.Module]]:
    """Return the class of every part that has weights."""
    import diffusers
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers}
    getattr(diffusers, str(index.get("_class_name")), None)  # with PRX's, diffusers adds a class to transformers
    kinds = {part: getattr(libraries.get(library), name, None) for part, (library, name) in parts_of(index).items()}
    return {part: kind for part, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, nn.Module)}


def _num_template_tokens(tokenizer: Any) -> int:
    """Count the tokens that a chat template puts around a prompt."""
    if not getattr(tokenizer, "chat_template", None):
        return 0
    empty = [{"role": "user", "content": ""}]
    text = tokenizer.apply_chat_template(empty, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    return len(tokenizer(text)["input_ids"])
