"""Settings of stage fit_thresholds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tailorset.settings import Block


class FitThresholds(Block):
    source: Literal["seen_photos", "synthetic"]
    share_pooling: float = Field(ge=0, le=1)
    max_risk: float = Field(gt=0, le=0.5)
