"""The part of a prompt that a generator's text encoders read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any


class TokenLimit:
    """Limit of the tokens that text encoders read; the rest of a text never reaches them.

    tokenizers: of the transformers library, one per text encoder, at least one.
    """

    def __init__(self, tokenizers: Sequence[Any]) -> None:
        self.tokenizers = tokenizers

    def excess(self, text: str) -> int:
        """Number of tokens beyond the limit, by the strictest tokenizer; 0 or less if all are read."""
        return max(self._count(tokenizer, text) - tokenizer.model_max_length for tokenizer in self.tokenizers)

    def count(self, text: str) -> int:
        """Number of tokens with those at start and end, by the tokenizer that makes the most."""
        return max(self._count(tokenizer, text) for tokenizer in self.tokenizers)

    def read(self, text: str) -> str:
        """Return the leading words that all text encoders read completely."""
        if self.excess(text) <= 0:
            return text
        words = text.split(" ")
        beginnings = range(1, len(words) + 1)
        fitting = bisect_right(beginnings, 0, key=lambda size: self.excess(" ".join(words[:size])))
        return " ".join(words[:fitting])

    @staticmethod
    def _count(tokenizer: Any, text: str) -> int:
        return len(tokenizer(text, truncation=False, verbose=False)["input_ids"])
