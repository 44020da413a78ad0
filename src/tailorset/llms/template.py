"""Template phrases without a language model: the ablation that shows the value of a model's variety."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from tailorset.messages import Strict
from tailorset.prompts.wording import Dialogue, keywords_of, scene_of, template_phrase


class Config(Strict):
    """num_words: the least number of words of a phrase, write_prompts.min_words or more."""

    num_words: int = Field(default=10, ge=1)
    batch_size: int = Field(default=256, gt=0)


class TemplateLLM:
    """Fills the keywords of a dialogue into fixed wordings."""

    def __init__(self, config: Config) -> None:
        self.batch_size = config.batch_size
        self.num_words = config.num_words

    def reply(self, dialogues: list[Dialogue], seeds: list[int]) -> list[str]:
        """Return one template phrase per dialogue; it depends on keywords, scene and seed only."""
        return [
            template_phrase(keywords_of(messages), self.num_words, np.random.default_rng(seed), scene_of(messages))
            for messages, seed in zip(dialogues, seeds, strict=True)
        ]


def build(config: Config, device: torch.device) -> TemplateLLM:
    """Return the template; `device` is not used."""
    return TemplateLLM(config)
