"""The gate: may a challenger replace the champion, by its measurements?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tailorset.evaluation.results import MAPS, percent
from tailorset.registry.measurement import Measurement

ROUNDING = 1e-9  # a loss of the margin itself passes
LEAST_GAIN = 0.005  # points over raw CLIP: less does not show in the figures, and ties of raw CLIP itself can bring it


@dataclass(frozen=True)
class Change:
    """One figure in [0, 1] of the challenger, and of what it must match."""

    name: str
    challenger: float
    other: float

    @property
    def points(self) -> float:
        """Difference in percentage points; negative if the challenger is worse."""
        return 100 * (self.challenger - self.other)


@dataclass(frozen=True)
class ModelComparison:
    """changes: ZSL and GZSL mAP on val, next to those of `other`: they decide. objections: why the challenger may not
    take its place. reported: the same on test, if both were measured on the same photos.

    regressions: labels that lost more average precision on test than the margin, worst first; they do not decide.
    notes: on labels that only the challenger has, because they were added to it.
    """

    other: str
    changes: tuple[Change, ...] = ()
    reported: tuple[Change, ...] = ()
    regressions: tuple[Change, ...] = ()
    objections: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def compare(challenger: Measurement, champion: Measurement | None, margin: float) -> ModelComparison:
    """Compare both mAPs on val: neither may fall more than `margin` points below the champion's.

    Without a champion, both must be above raw CLIP's. Test is reported and does not decide: choosing by it would spoil
    it as a measure. If labels were added to the challenger, the rest is compared, and each added one with raw CLIP.
    """
    if champion and challenger.before and set(champion.average_precision) == challenger.labels_before:
        return _with_added(compare(challenger.before, champion, margin), challenger, margin)
    if not challenger.val_maps:
        return _refused(champion, "no val photo is annotated for unseen labels, so nothing was measured: annotate some")
    if champion is None:
        if not challenger.val_clip_maps:
            return _refused(champion, "raw CLIP was not measured on val, which a first champion must beat: `make run`")
        changes = _changes(MAPS, challenger.val_maps, challenger.val_clip_maps)
        beaten = [
            f"{_figures(change)}, which is not above raw CLIP" for change in changes if change.points < LEAST_GAIN
        ]
        reported = _changes(MAPS, challenger.maps, challenger.clip_maps)
        return ModelComparison("raw CLIP", changes, reported, objections=tuple(beaten))
    if problem := _incomparable(challenger, champion):
        return _refused(champion, problem)
    changes = _changes(MAPS, challenger.val_maps, champion.val_maps)
    worse = [f"{_figures(change)}, a loss of more than {margin:g} points" for change in _lost(changes, margin)]
    if champion.test_set != challenger.test_set:
        return ModelComparison("champion", changes, objections=tuple(worse))
    reported = _changes(MAPS, challenger.maps, champion.maps)
    names = {name: name for name in challenger.average_precision}
    regressions = _lost(_changes(names, challenger.average_precision, champion.average_precision), margin)
    return ModelComparison("champion", changes, reported, regressions, tuple(worse))


def _with_added(comparison: ModelComparison, challenger: Measurement, margin: float) -> ModelComparison:
    """Add what is known of labels that only the challenger has: on val none may be far below raw CLIP."""
    notes, worse = [], []
    for label, (ours, clip) in challenger.added.items():
        if ours is None or clip is None:
            notes.append(f"added {label}: no val photo shows it, so nothing was measured")
            continue
        notes.append(f"added {label}: average precision on val is {percent(ours)}, raw CLIP's {percent(clip)}")
        change = Change(f"{label}'s average precision on val", ours, clip)
        worse += [f"{_figures(lost)}, raw CLIP's" for lost in _lost([change], margin)]
    return replace(comparison, objections=(*comparison.objections, *worse), notes=tuple(notes))


def _incomparable(challenger: Measurement, champion: Measurement) -> str:
    if set(champion.average_precision) != set(challenger.average_precision):
        labels = sorted(set(champion.average_precision) ^ set(challenger.average_precision))
        return (
            f"only one of challenger and champion has {labels}: their mAPs cannot be compared; for a label that was"
            " added to the champion, put it into the label file and `make run`"
        )
    if champion.unseen and set(champion.unseen) != set(challenger.unseen):
        labels = sorted(set(champion.unseen) ^ set(challenger.unseen))
        return f"{labels} are unseen for only one of challenger and champion: their ZSL mAPs cannot be compared"
    remedy = "`tailorset promote --measure` measures the champion on the photos in data/real"
    if not champion.val_maps:
        return f"the champion was not measured on val, by which versions are compared: {remedy}"
    if champion.val_set != challenger.val_set:
        sets = f"{champion.val_set[:8]}) than the challenger ({challenger.val_set[:8]}"
        return f"the champion was measured on other val photos ({sets}): {remedy}"
    return ""


def _refused(champion: Measurement | None, objection: str) -> ModelComparison:
    return ModelComparison("champion" if champion else "raw CLIP", objections=(objection,))


def _changes(
    names: Mapping[str, str], ours: Mapping[str, float | None], other: Mapping[str, float | None]
) -> tuple[Change, ...]:
    pairs = [(name, ours.get(key), other.get(key)) for key, name in names.items()]
    return tuple(Change(name, a, b) for name, a, b in pairs if a is not None and b is not None)


def _lost(changes: Iterable[Change], margin: float) -> tuple[Change, ...]:
    lost = [change for change in changes if change.points < -margin - ROUNDING]
    return tuple(sorted(lost, key=lambda change: change.points))


def _figures(change: Change) -> str:
    return f"{change.name} is {percent(change.challenger, 2)} instead of {percent(change.other, 2)}"
