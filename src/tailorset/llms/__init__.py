"""Plug-ins that answer dialogues: the language models that write prompts.

An LLM is one file here with a `Config` and `build(config, device) -> LLM`. Its replies are untrusted text; the
contract of tailorset.prompts.contract decides which of them become prompts.
"""

from __future__ import annotations

from typing import Protocol

from tailorset.prompts.wording import Dialogue


class LLM(Protocol):
    """A chat model."""

    batch_size: int  # the best number of dialogues per call

    def reply(self, dialogues: list[Dialogue], seeds: list[int]) -> list[str]:
        """Return one reply per dialogue, drawn with its own seed in [0, 2**63)."""
        ...
