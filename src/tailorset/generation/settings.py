"""Settings of stage generate_images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tailorset.settings import Block


class Allocation(Block):
    """The allocator of a round's budget; the keys after `name` are used by `thompson` only."""

    name: Literal["uniform", "turns", "thompson"]
    round_images: int = Field(gt=0)  # the most candidates planned before their outcome is known
    gain: Literal["images", "labels"]
    max_share_per_prompt: float = Field(gt=0, le=1)  # of a label's quota
    max_share_per_pair: float = Field(gt=0, le=1)


class GenerateImages(Block):
    """Quotas of kept images, the budget of candidates, and how they are drawn."""

    images_per_label: int = Field(gt=0)
    max_images: int = Field(gt=0)
    allocation: Allocation
    weakness: dict[str, Annotated[float, Field(gt=0)]]  # label -> factor of its quota
    quota_threshold: float = Field(ge=0, le=1)
    num_inference_steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    shard_size: int = Field(gt=0)
