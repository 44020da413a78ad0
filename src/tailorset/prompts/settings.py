"""Settings of stage write_prompts."""

from __future__ import annotations

from pydantic import Field

from tailorset.prompts.writer import num_prompts
from tailorset.records import LabelSpace
from tailorset.settings import Block, PluginBlock


class Llm(PluginBlock):
    kind = "llms"


class WritePrompts(Block):
    prompts_per_pair: int = Field(gt=0)
    max_prompts: int | None = Field(gt=0)
    min_words: int = Field(ge=1)
    max_attempts: int = Field(ge=0)
    llm: Llm

    def num_prompts(self, label_space: LabelSpace) -> int:
        """How many prompts will be written for the unseen labels."""
        return num_prompts(label_space, self.prompts_per_pair, self.max_prompts)
