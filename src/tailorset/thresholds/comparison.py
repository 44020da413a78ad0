"""The fitted thresholds against the simplest rule and against thresholds fitted with real labels.

Shapes: N images, L labels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from torch import Tensor

from tailorset.storage.annotated import Annotated
from tailorset.thresholds.fitting import fit_platt, make_thresholds, one_sided
from tailorset.thresholds.measures import trust_metrics
from tailorset.thresholds.rules import Decisions, Thresholds, one_threshold

log = logging.getLogger(__name__)


def compared_rules(
    fitted: Thresholds, val: Annotated, logits: Callable[[Annotated], Tensor], max_risk: float
) -> dict[str, Thresholds]:
    """Return the fitted rules, the one without fitting, and the bound, if val allows it.

    The bound is fitted on val with its real labels, so each label must be present in some photos and absent in others.

    logits: images -> a classifier's logits, (N, L).
    """
    names = fitted.labels
    rules = {"fitted": fitted, "one_threshold": one_threshold(names)}
    if missing := one_sided(val.targets, names):
        log.warning("no bound for the thresholds: val lacks photos with, or without, %s", ", ".join(missing))
        return rules
    values = logits(val)
    calibration = fit_platt(values, val.targets, names)
    return rules | {"real_labels": make_thresholds(names, calibration, values, val.targets, max_risk)}


def rule_metrics(decisions: Mapping[str, Decisions], targets: Tensor, unseen: list[int]) -> dict[str, float]:
    """Return `trust/<rule>/zsl|gzsl/...`. targets: (N, L); unseen: columns of the unseen labels."""
    metrics: dict[str, float] = {}
    for name, decided in decisions.items():
        zsl = trust_metrics(decided.columns(unseen), targets[:, unseen])
        gzsl = trust_metrics(decided, targets)
        metrics |= {f"trust/{name}/zsl/{key}": value for key, value in zsl.items()}
        metrics |= {f"trust/{name}/gzsl/{key}": value for key, value in gzsl.items()}
    return metrics
