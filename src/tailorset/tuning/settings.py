"""Settings of stage tune_text_encoder."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tailorset.settings import Block


class TuneTextEncoder(Block):
    """Updates of the text encoder's adapter, the loss they lower, and when they end."""

    num_updates: int = Field(ge=0)  # at most; 0 = no tuning
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)  # in units of the last updates' median norm: it means the same for every K
    lora_rank: int = Field(gt=0)
    lora_alpha: float = Field(gt=0)
    num_inference_steps: int = Field(gt=0)
    backprop_steps: int = Field(gt=0)  # K: the last steps that pass gradients to the text encoder
    stop_after: tuple[int, int] | None  # (least, most) steps of an update, drawn again for each; None = all
    compare_with: Literal["unseen", "all"]  # the labels that requested ones compete with
    gradient_checkpointing: bool
    gamma_neg: float = Field(ge=0)
    gamma_pos: float = Field(ge=0)
    clip: float = Field(ge=0, lt=1)  # margin of the asymmetric loss
    held_out_prompts: int = Field(gt=0)
    evaluate_every: int = Field(gt=0)  # updates
    patience: int = Field(gt=0)  # evaluations without a lower loss after which tuning ends
    checkpoint_every: int = Field(gt=0)  # updates

    @model_validator(mode="after")
    def _steps(self) -> Self:
        if self.backprop_steps > self.num_inference_steps:
            raise ValueError(
                f"backprop_steps is {self.backprop_steps}, more than the sampling steps there are: "
                f"choose 1 to num_inference_steps ({self.num_inference_steps})."
            )
        least, most = self.stop_after or (1, self.num_inference_steps)
        if not 1 <= least <= most <= self.num_inference_steps:
            raise ValueError(
                f"stop_after is [{least}, {most}]: choose a least and a most number of steps from 1 to"
                f" num_inference_steps ({self.num_inference_steps}), or null for all"
            )
        return self
