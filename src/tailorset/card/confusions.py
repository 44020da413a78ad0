"""Confusions of a label with others: on images that were drawn for it, and on test photos.

Shapes: N images, L labels, P photos that show the label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tailorset.card.candidates import Candidates
from tailorset.records import LabelSpace

NUM_SHOWN = 3  # of the highest shares of each kind; look-alikes of the label file are always shown


@dataclass(frozen=True)
class Photos:
    """The test photos. ids: N; scores: (N, L) of the classifier; targets: (N, L) in {1, 0, -1}."""

    ids: tuple[str, ...]
    scores: np.ndarray
    targets: np.ndarray

    def false_alarms(self, index: int) -> np.ndarray:
        """Return row numbers of the photos without the label among its P highest scores, highest first."""
        known = np.flatnonzero(self.targets[:, index] >= 0)
        ranked = known[np.argsort(-self.scores[known, index], kind="stable")]
        best = ranked[: int((self.targets[:, index] == 1).sum())]
        return best[self.targets[best, index] == 0]


@dataclass(frozen=True)
class Confusion:
    """Shares of images in which `label` is mistaken for another label; None for a share of nothing.

    wins: of the candidates rejected because the label was missing, where the discriminator scores this one highest.
    fools: of the kept candidates, where the judge scores this one above the label.
    alarms: of the label's false alarms on photos, those that show this one; usual: of all photos without the label.
    """

    label: str
    look_alike: bool
    wins: float | None
    fools: float | None
    alarms: float | None
    usual: float | None

    @property
    def excess(self) -> float | None:
        """Share of the false alarms that show it, minus the usual share."""
        return None if self.alarms is None or self.usual is None else self.alarms - self.usual


def confusions(label: str, candidates: Candidates, photos: Photos) -> list[Confusion]:
    """Return look-alikes first, then the labels most often mistaken in any of the three respects."""
    space = candidates.label_space
    shares = _candidate_shares(label, candidates) + _photo_shares(label, space, photos)
    rows = [
        Confusion(other, frozenset({label, other}) in space.confusable, *(_number(share[i]) for share in shares))
        for i, other in enumerate(space.names)
        if other != label
    ]
    strong = {row.label for key in ("wins", "fools", "excess") for row in _strongest(rows, key)}
    shown = [row for row in rows if row.look_alike or row.label in strong]
    return sorted(shown, key=lambda row: (not row.look_alike, -(row.wins or 0), -(row.fools or 0)))


def _candidate_shares(label: str, candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
    """Return (L,) shares of rejected candidates that each label wins, and of kept ones in which it beats the label."""
    requested, mask, names = candidates.requested(label), candidates.mask, candidates.label_space.names
    rejected = requested & ~candidates.kept & candidates.weakest(label)
    kept = requested & candidates.kept
    others = np.where(mask, -np.inf, candidates.logits["discriminator"])[rejected]
    wins = np.bincount(others.argmax(axis=1), minlength=len(names)) if len(others) else np.zeros(len(names))
    judge = candidates.logits["judge"][kept]
    beats = judge > judge[:, [names.index(label)]]
    return _ratio(wins, np.full(len(names), rejected.sum())), _ratio((beats & ~mask[kept]).sum(0), (~mask[kept]).sum(0))


def _photo_shares(label: str, space: LabelSpace, photos: Photos) -> tuple[np.ndarray, np.ndarray]:
    """Return (L,) shares of the label's false alarms, and of all photos without it, that show each label."""
    index = space.index(label)
    alarms = photos.targets[photos.false_alarms(index)]
    absent = photos.targets[photos.targets[:, index] == 0]
    return tuple(_ratio((part == 1).sum(0), (part >= 0).sum(0)) for part in (alarms, absent))  # type: ignore[return-value]


def _strongest(rows: list[Confusion], key: str) -> list[Confusion]:
    above = [row for row in rows if (getattr(row, key) or 0) > 0]
    return sorted(above, key=lambda row: -getattr(row, key))[:NUM_SHOWN]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _number(share: float) -> float | None:
    return None if np.isnan(share) else float(share)
