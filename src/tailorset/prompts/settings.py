"""Settings of stage write_prompts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tailorset.records import LabelSpace
from tailorset.settings import Block, PluginBlock

Words = Annotated[str, Field(pattern=r"^\S+( \S+)*$")]


class Llm(PluginBlock):
    kind = "llms"


class CaptionerSettings(PluginBlock):
    kind = "llms/captioners"


class Captions(Block):
    """Number of lent photos whose captions become scenes of the prompts, and the model that writes captions."""

    num_photos: int = Field(gt=0)
    captioner: CaptionerSettings


class WritePrompts(Block):
    """Number of prompts, the contract they must meet, and the language model that writes them."""

    prompts_per_pair: int = Field(gt=0)
    max_prompts: int | None = Field(gt=0)  # cap on all prompts, spread over labels and pairs; None = no cap
    min_words: int = Field(ge=1)
    max_attempts: int = Field(ge=0)  # rounds of asking; the rest comes from the template
    # Kinds of pictures, e.g. "a photo of": the prompts of a pair begin with one of them in turn; () = as replied.
    kinds: tuple[Words, ...]
    llm: Llm
    captions: Captions | None = None  # None = prompts of any scene

    def num_prompts(self, label_space: LabelSpace) -> int:
        """Number of prompts to write for the unseen labels."""
        total = len(label_space.pairs()) * self.prompts_per_pair
        return total if self.max_prompts is None else min(total, self.max_prompts)
