"""Settings of stage train_classifier."""

from __future__ import annotations

from pydantic import Field, SerializeAsAny

from tailorset.settings import PluginBlock
from tailorset.training.contract import TrainingConfig


class TrainClassifier(PluginBlock):
    """Settings that every classifier shares; `config` holds those of the plug-in, the loop's among them."""

    kind = "classifiers"
    config: SerializeAsAny[TrainingConfig]
    held_out_share: float = Field(gt=0, lt=1)
    synthetic_repeats: int = Field(ge=1)
    mosaics: float = Field(default=0, ge=0)  # mosaics of four kept images in an epoch, per kept image
