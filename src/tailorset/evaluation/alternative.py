"""A run of other settings, measured on the same test photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tailorset.evaluation.bootstrap import Interval


@dataclass(frozen=True)
class Alternative:
    """changes: {setting: its value in this run}. differences: {"ZSL mAP": this run minus the one beside it}."""

    name: str
    changes: Mapping[str, str]
    differences: Mapping[str, Interval]

    @property
    def is_worse(self) -> bool:
        """True if a mAP is lower by more than the choice of test photos explains."""
        return any(interval.high < 0 for interval in self.differences.values())
