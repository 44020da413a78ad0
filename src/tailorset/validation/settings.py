"""Settings of stage validate_data."""

from __future__ import annotations

from pydantic import Field

from tailorset.settings import Block


class ValidateData(Block):
    max_template_share: float = Field(ge=0, le=1)
    min_images_per_label: int = Field(ge=0)
    annotated_unseen: bool = False
