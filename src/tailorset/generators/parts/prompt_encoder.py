"""Prompts as the UNet of Stable Diffusion or of SDXL reads them: all that differs between the two.

Shapes: B prompts, E width of the states (of both encoders together), P width of the pooled embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tailorset.generators.parts.components import Components

# States (B, tokens, E), and for SDXL the pooled embeddings (B, P) and the time ids (B, 6).
Text = tuple[Tensor, ...]


class PromptEncoder:
    """One text encoder, or the two of SDXL, each with its own tokenizer."""

    def __init__(self, components: Components, image_px: int) -> None:
        self.tokenizers, self.text_encoders = components.tokenizers, components.text_encoders
        self.zero_negative = components.zero_negative
        self._time_ids = torch.tensor([image_px, image_px, 0, 0, image_px, image_px], dtype=torch.float32)

    def encode(self, prompts: Sequence[str]) -> Text:
        """Return the text of B prompts; each distinct one is encoded once."""
        distinct = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
        encode = self._by_two if len(self.tokenizers) == 2 else self._by_one
        return tuple(part[[distinct[prompt] for prompt in prompts]] for part in encode(list(distinct)))

    @torch.no_grad()
    def frozen_negative(self, prompt: str, freeze: bool) -> Text | None:
        """Return the text of the negative prompt, B = 1, if no adapter may change it, else None.

        It is fixed if `freeze` is set, or if it is empty and encoded as zeros.
        """
        is_zero = self.zero_negative and not prompt
        if not freeze and not is_zero:
            return None
        states, *added = self.encode([prompt])
        if not is_zero:
            return states, *added
        pooled, time_ids = added
        return torch.zeros_like(states), torch.zeros_like(pooled), time_ids

    @torch.no_grad()
    def encode_captions(self, captions: Sequence[str]) -> Text:
        """Return the text of B captions; an empty one is encoded as guidance encodes an empty negative prompt."""
        text = self.encode(captions)
        if not self.zero_negative:
            return text
        states, pooled, time_ids = text
        empty = torch.tensor([not caption for caption in captions], device=states.device)
        return states.masked_fill(empty.view(-1, 1, 1), 0), pooled.masked_fill(empty.view(-1, 1), 0), time_ids

    def _by_one(self, prompts: list[str]) -> Text:
        (encoder,) = self.text_encoders.values()
        tokens = self._tokens(0, prompts)
        use_mask = getattr(encoder.config, "use_attention_mask", False)
        return (encoder(tokens.input_ids, attention_mask=tokens.attention_mask if use_mask else None)[0],)

    def _by_two(self, prompts: list[str]) -> Text:
        """Return the states before the last layer, of both encoders side by side, pooled embeddings and time ids.

        The second encoder is pooled. Time ids are the size of a training photo, its crop (none) and the image's size.
        """
        outputs = [
            encoder(self._tokens(number, prompts).input_ids, output_hidden_states=True)
            for number, encoder in enumerate(self.text_encoders.values())
        ]
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return states, outputs[1].text_embeds, self._time_ids.to(states).expand(len(prompts), -1)

    def _tokens(self, number: int, prompts: list[str]) -> Any:
        """Return the tokens of the prompts for one of the encoders, each padded to its full length."""
        tokenizer = self.tokenizers[number]
        length, device = tokenizer.model_max_length, next(self.text_encoders.parameters()).device
        tokens = tokenizer(prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return tokens.to(device)


def unet_arguments(text: Text) -> dict[str, Any]:
    """Return the arguments of the UNet's call that hold the text."""
    states, *added = text
    return {
        "encoder_hidden_states": states,
        "added_cond_kwargs": dict(zip(("text_embeds", "time_ids"), added, strict=False)),
    }
