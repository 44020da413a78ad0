"""Dialogues as tokens: by a model's chat template or, for a base model, as a text of examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tailorset.llms.parts.few_shot import plain_text
from tailorset.llms.parts.thinking import NO_THINKING
from tailorset.messages import first_line
from tailorset.prompts.wording import Dialogue, dialogue

PROBES = (dialogue(("cup",), 10), dialogue(("key", "fish"), 10))
Encode = Callable[[Dialogue], list[int]]


class DialogueTokens:
    """Encodes dialogues as the model reads them.

    tokenizer: of the transformers library; it needs no token for padding. title: of the model, for messages.

    Raises:
        ValueError: the chat template fails, or the request does not get through it and the tokenizer.
    """

    def __init__(self, tokenizer: Any, title: str) -> None:
        self.tokenizer, self.is_base = tokenizer, not tokenizer.chat_template
        ways = (self._continued,) if self.is_base else (self._templated, self._templated_parts)
        self.encode = self._working(ways, title)
        self.highest = max(max(self.encode(probe)) for probe in PROBES)

    def batch(self, dialogues: Sequence[Dialogue]) -> tuple[Tensor, Tensor]:
        """Return token ids and mask (B, P), left-padded."""
        rows = [torch.tensor(self.encode(one), dtype=torch.long) for one in dialogues]
        return _left_padded(rows), _left_padded([torch.ones_like(row) for row in rows])

    def _continued(self, messages: Dialogue) -> list[int]:
        return list(self.tokenizer(plain_text(messages))["input_ids"])

    def _templated(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        encoded = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, **NO_THINKING
        )
        return list(encoded["input_ids"])

    def _templated_parts(self, messages: Dialogue) -> list[int]:
        """Encode messages as lists of parts, which chat templates of vision models may require."""
        return self._templated([one | {"content": [{"type": "text", "text": one["content"]}]} for one in messages])

    def _working(self, ways: Sequence[Encode], title: str) -> Encode:
        """Return the first way to encode dialogues that keeps two requests apart."""
        from jinja2 import TemplateError

        faults = []
        for encode in ways:
            try:
                one, other = map(encode, PROBES)
            except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
                faults.append(first_line(error))
            else:
                if one and other and one != other:
                    return encode
                faults.append("the request is not among the tokens; files of the tokenizer may be missing")
        raise ValueError(
            f"LLM {title!r}: its {'tokenizer' if self.is_base else 'chat template'} cannot be used with one message of"
            f" a user ({faults[0]}). Restore the folder's files, correct chat_template.jinja or remove it, so that the"
            " model is given examples to continue, or name another model in write_prompts.llm.model"
        )


def _left_padded(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_side="left")
