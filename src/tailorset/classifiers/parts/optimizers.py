"""Optimisers of a dual-prompt classifier in training: each kind of parameter has a learning rate of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim import SGD, AdamW, Optimizer

if TYPE_CHECKING:
    from tailorset.classifiers.dual_prompt import DualPrompt


def optimizers(classifier: DualPrompt) -> dict[str, Optimizer]:
    """Return SGD for the contexts, as published, and AdamW for all else: the fusion's near-zero scale starves SGD."""
    config, prompts = classifier.config, classifier.prompts
    assert prompts is not None, "only a classifier built from its params is trained"
    contexts = [one for one in (prompts.contexts, prompts.generated_tokens) if one is not None]
    sgd = SGD(contexts, config.learning_rate, config.momentum, weight_decay=config.weight_decay)
    calibration = AdamW(classifier.calibration.parameters(), config.calibration_learning_rate, weight_decay=0)
    found: dict[str, Optimizer] = {"prompts": sgd, "calibration": calibration}
    if rate := config.label_residual_learning_rate:
        found["label_residual"] = AdamW([prompts.residual], rate, weight_decay=0)
    if config.fusion:
        rate = config.fusion_learning_rate
        found["fusion"] = AdamW(classifier.fusion.parameters(), rate, weight_decay=config.weight_decay)
    if rate := config.backbone_learning_rate:
        found["backbone"] = AdamW(classifier.visual.parameters(), rate, weight_decay=config.weight_decay, fused=True)
    return found
