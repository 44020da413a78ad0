"""How much of a prompt a generator's text encoders read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any


class TokenLimit:
    """The first tokens of a text, as many as each of the text encoders takes; the rest never reaches them.

    tokenizers: of the transformers library, one per text encoder, at least one.
    """

    def __init__(self, tokenizers: Sequence[Any]) -> None:
        self.tokenizers = tokenizers

    def excess(self, text: str) -> int:
        """Tokens beyond the limit, by the strictest tokenizer; 0 or less where all are read."""
        return max(self._count(tokenizer, text) - tokenizer.model_max_length for tokenizer in self.tokenizers)

    def count(self, text: str) -> int:
        """Tokens of a text with those at its start and end, by the tokenizer that makes most of them."""
        return max(self._count(tokenizer, text) for tokenizer in self.tokenizers)

    def read(self, text: str) -> str:
        """The leading words that all text encoders read whole."""
        if self.excess(text) <= 0:
            return text
        words = text.split(" ")
        beginnings = range(1, len(words) + 1)
        fitting = bisect_right(beginnings, 0, key=lambda size: self.excess(" ".join(words[:size])))
        return " ".join(words[:fitting])

    @staticmethod
    def _count(tokenizer: Any, text: str) -> int:
        return len(tokenizer(text, truncation=False, verbose=False)["input_ids"])
