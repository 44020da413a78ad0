"""Settings of stages score_baselines and evaluate."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tailorset.clip.settings import ClipModel
from tailorset.settings import Block, Wording


class ScoreBaselines(Block):
    clip: ClipModel
    templates: tuple[Wording, ...] = Field(min_length=1)


class Evaluate(Block):
    top_k: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
