"""Settings of stage data_card."""

from __future__ import annotations

from pydantic import Field

from tailorset.settings import Block


class DataCard(Block):
    num_shown: int = Field(ge=2)  # images per sheet; half as many pairs of near-duplicates
    num_resamples: int = Field(gt=0)
    near_duplicate: float = Field(gt=0, le=1)  # similarity of pixels at which a pair counts
    low_pass_rate: float = Field(ge=0, le=1)  # a label below it is hard to draw
    min_gain: float = Field(ge=0, lt=1)
