"""Decisions on scores: calibrated probabilities, a threshold per label, and a band in which a label is left open.

Shapes: N images, L labels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

FILE_VERSION = 1
LabelDecision = Literal["present", "absent", "open"]
LOGIT_EPS = 1e-6  # probabilities of exactly 0 or 1 have no logit


@dataclass(frozen=True)
class LabelRule:
    """calibrated = sigmoid(scale * logit(score) + bias); the label is present from `threshold` on.

    It is better left open if it would be present below `abstain_high`, or absent above `abstain_low`.
    """

    scale: float = 1.0
    bias: float = 0.0
    threshold: float = 0.5
    abstain_low: float = 0.5
    abstain_high: float = 0.5


@dataclass(frozen=True)
class Decisions:
    """probabilities: (N, L) calibrated; present, abstained: (N, L) bool. `present` is also set where abstained."""

    probabilities: Tensor
    present: Tensor
    abstained: Tensor

    @property
    def words(self) -> list[list[LabelDecision]]:
        """(N, L) decisions as people read them; an abstained one is "open"."""
        return [
            [
                "open" if is_open else "present" if is_present else "absent"
                for is_open, is_present in zip(left_open, present, strict=True)
            ]
            for left_open, present in zip(self.abstained.tolist(), self.present.tolist(), strict=True)
        ]

    def columns(self, indices: list[int]) -> Decisions:
        """Return the decisions on these labels only."""
        return Decisions(self.probabilities[:, indices], self.present[:, indices], self.abstained[:, indices])


@dataclass(frozen=True)
class Thresholds:
    """One rule per label, in the order of the classifier's scores.

    photo_px: longest shorter side of the photos that were scored, which larger ones are shrunk to; None = not known.
    """

    rules: dict[str, LabelRule]
    photo_px: int | None = None

    def __post_init__(self) -> None:
        if self.photo_px is not None and (type(self.photo_px) is not int or self.photo_px < 1):
            raise ValueError(
                f"photo_px of thresholds is {self.photo_px!r}, not a number of pixels: run `dvc repro fit_thresholds`"
            )
        for label, rule in self.rules.items():
            if problem := _problem(rule):
                raise ValueError(f"thresholds of {label!r}: {problem}: run `dvc repro fit_thresholds` again")

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.rules)

    def check_labels(self, labels: Sequence[str]) -> None:
        """Check that the rules are for these labels, in this order.

        Raises:
            ValueError: they are for others.
        """
        if self.labels != tuple(labels):
            raise ValueError(f"thresholds are for {self.labels}, not {tuple(labels)}: run `dvc repro fit_thresholds`")

    def apply(self, scores: Tensor) -> Decisions:
        """Decide on a classifier's scores, (N, L) in [0, 1].

        Raises:
            ValueError: the scores have another number of labels.
        """
        if scores.shape[-1] != len(self.rules):
            raise ValueError(f"{scores.shape[-1]} scores per image, thresholds for {len(self.rules)}: {self.labels}")
        probabilities = (self._column("scale") * score_logits(scores) + self._column("bias")).sigmoid()
        present = probabilities >= self._column("threshold")
        low, high = self._column("abstain_low"), self._column("abstain_high")
        return Decisions(probabilities, present, torch.where(present, probabilities < high, probabilities > low))

    def save(self, path: Path) -> None:
        """Write stable JSON: a version, the photos' size and one object per label, in the order of the scores."""
        labels = [{"label": label} | asdict(rule) for label, rule in self.rules.items()]
        head = {"version": FILE_VERSION} | ({"photo_px": self.photo_px} if self.photo_px else {})
        content = json.dumps({**head, "labels": labels}, indent=2, allow_nan=False)
        path.write_text(content + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Thresholds:
        """Read thresholds that `save` wrote.

        Raises:
            ValueError: the file is missing, damaged, or of another version.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            version, photo_px = content["version"], content.get("photo_px")  # older files have no size
            rules = {entry.pop("label"): LabelRule(**entry) for entry in content["labels"]}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            from tailorset.storage.products import unusable

            raise ValueError(unusable(path, "thresholds", error, "fit_thresholds")) from error
        if version != FILE_VERSION:
            raise ValueError(f"{path} has version {version}, not {FILE_VERSION}: run `dvc repro fit_thresholds`")
        return cls(rules, photo_px)

    def _column(self, name: str) -> Tensor:
        return torch.tensor([getattr(rule, name) for rule in self.rules.values()], dtype=torch.float64)


def one_threshold(labels: Sequence[str]) -> Thresholds:
    """Return the rule to beat: scores are probabilities, a label is present from 0.5 on, nothing is left open."""
    return Thresholds({label: LabelRule() for label in labels})


def score_logits(scores: Tensor) -> Tensor:
    """Return log p / (1 - p), float64, of scores in [0, 1]."""
    return scores.double().clamp(LOGIT_EPS, 1 - LOGIT_EPS).logit()


def abstain_band(threshold: float, max_risk: float) -> tuple[float, float]:
    """Return (low, high) calibrated probabilities between which a decision is wrong more often than `max_risk`.

    "absent" at p is wrong with probability p, "present" with 1 - p.
    """
    low, high = min(threshold, max_risk), max(threshold, 1 - max_risk)
    return low, high


def _problem(rule: LabelRule) -> str | None:
    values = asdict(rule)
    if bad := [name for name, value in values.items() if type(value) is not float or not math.isfinite(value)]:
        return f"{bad[0]} is {values[bad[0]]!r}, not a finite number"
    if rule.scale <= 0:
        return f"scale is {rule.scale}, which would reverse the ranking or lose it"
    if not 0 <= rule.abstain_low <= rule.threshold <= rule.abstain_high <= 1:
        return f"abstain_low <= threshold <= abstain_high does not hold: {rule}"
    return None
