"""Settings of stage train_classifier that are not the plug-in's."""

from __future__ import annotations

from pydantic import Field

from tailorset.settings import PluginBlock


class TrainClassifier(PluginBlock):
    kind = "classifiers"
    held_out_share: float = Field(gt=0, lt=1)
    synthetic_repeats: int = Field(ge=1)
