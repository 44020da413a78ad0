"""Settings of stage tune_unet."""

from __future__ import annotations

from pydantic import Field

from tailorset.settings import Block


class TuneUnet(Block):
    """Updates of the UNet's adapter on annotated photos of train."""

    num_updates: int = Field(ge=0)  # 0 = no tuning, as published
    batch_size: int = Field(gt=0)
    num_photos: int = Field(gt=0)  # that show a seen label, at most
    learning_rate: float = Field(gt=0)
    max_grad_norm: float = Field(gt=0)
    lora_rank: int = Field(gt=0)
    lora_alpha: float = Field(gt=0)
    checkpoint_every: int = Field(gt=0)  # updates
