"""BLIP, and other models of the transformers library that caption a photo without being asked a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import Field

from tailorset.compute.memory import ShrinkingBatches
from tailorset.messages import first_line
from tailorset.storage import checksums
from tailorset.storage.hub import NamedModel

CAPTIONING_MEMORY_REMEDY = "name a smaller model under write_prompts.captions.captioner"


class Config(NamedModel):
    """model: with safetensors weights, such as Salesforce/blip-image-captioning-large; code of its own is never run."""

    max_new_tokens: int = Field(default=30, gt=0)
    batch_size: int = Field(default=16, gt=0)


class Blip:
    """Writes the likeliest caption, word by word: nothing is random."""

    def __init__(self, config: Config, model: Any, processor: Any) -> None:
        self.config, self.model, self.processor = config, model, processor
        self.batch_size = config.batch_size  # photos per call; `batches` may run them in smaller parts
        self.batches = ShrinkingBatches(config.batch_size, "captioning photos", CAPTIONING_MEMORY_REMEDY)

    def caption(self, photos: list[Image.Image]) -> list[str]:
        """Return one caption per photo; a batch changes it only where rounding decides between two words."""
        parts = self.batches.over(len(photos), lambda part: self._captions(photos[part]))
        return [text.strip() for _, texts in parts for text in texts]

    @torch.inference_mode()
    def _captions(self, photos: list[Image.Image]) -> list[str]:
        pixels = self.processor.image_processor(images=photos, return_tensors="pt")["pixel_values"]
        tokens = self.model.generate(
            pixel_values=pixels.to(self.model.device, self.model.dtype),
            max_new_tokens=self.config.max_new_tokens,
            do_sample=False,
            num_beams=1,
        )
        return self.processor.batch_decode(tokens, skip_special_tokens=True)


def build(config: Config, device: torch.device) -> Blip:
    """Load the processor and the weights, float32 on a CPU, else bfloat16.

    Raises:
        ValueError: the model does not exist, needs a question to each photo, or its weights are missing, truncated or
            not in safetensors.
    """
    import transformers

    options = {"revision": config.revision, "trust_remote_code": False}
    try:
        checksums.check(Path(config.model))
        processor = transformers.AutoProcessor.from_pretrained(config.model, **options)
    except Exception as error:  # each tokenizer's library has errors of its own
        raise ValueError(_refusal(config, first_line(error))) from error
    if getattr(processor, "chat_template", None) or not hasattr(processor, "image_processor"):
        kind = type(processor).__name__
        raise ValueError(
            _refusal(config, f"its {kind} reads no photos, or wants a question about each, as chat models do")
        )
    try:
        model, info = transformers.AutoModelForImageTextToText.from_pretrained(
            config.model,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32 if device.type == "cpu" else torch.bfloat16,
            **options,
        )
    except Exception as error:  # as above
        raise ValueError(_refusal(config, first_line(error))) from error
    if info["missing_keys"]:
        raise ValueError(_refusal(config, f"no weights for {sorted(info['missing_keys'])[:3]}"))
    return Blip(config, model.eval().to(device), processor)


def _refusal(config: Config, error: str) -> str:
    return (
        f"captioner {config.model!r} cannot be loaded: {error}. Give write_prompts.captions.captioner.model a folder"
        " with config.json, processor, tokenizer and complete *.safetensors, or the name of a captioning model on the"
        " Hugging Face hub, such as Salesforce/blip-image-captioning-large (HF_HUB_OFFLINE=0 lets it download);"
        " `captioner: {name: scenes, ...}` needs a CLIP only."
    )
