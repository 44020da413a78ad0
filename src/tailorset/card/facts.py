"""Facts of the data card on each unseen label, from its prompts to its test photos.

Shapes: N candidates, U unseen labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tailorset.card.candidates import Candidates
from tailorset.card.confusions import Confusion, Photos, confusions
from tailorset.card.near_duplicates import closest_pairs
from tailorset.card.settings import DataCard
from tailorset.card.verdicts import Precision, Verdict
from tailorset.clip.settings import ROLES


@dataclass(frozen=True)
class Tile:
    """An image to show and the lines below it."""

    image_id: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Sheet:
    """Some of `total` images of a kind."""

    title: str
    about: str
    total: int
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Rates:
    """Numbers of candidates drawn and kept, and by the judge; a share of nothing is None.

    judge_kept: candidates the judge would keep by the filter's rule; confirmed: kept candidates among them.
    """

    drawn: int
    kept: int
    judge_kept: int
    confirmed: int

    @property
    def pass_rate(self) -> float | None:
        return self.kept / self.drawn if self.drawn else None

    @property
    def judge_rate(self) -> float | None:
        return self.judge_kept / self.drawn if self.drawn else None

    @property
    def confirmed_rate(self) -> float | None:
        return self.confirmed / self.kept if self.kept else None


@dataclass(frozen=True)
class PromptRow:
    text: str
    labels: tuple[str, ...]
    origin: str
    rates: Rates


@dataclass(frozen=True)
class Duplicates:
    """pairs: number of pairs of kept images that are near-duplicates; images: number of images in such a pair; closest:
    pairs to show, also below the limit."""

    pairs: int
    images: int
    closest: tuple[tuple[Tile, Tile], ...]


@dataclass(frozen=True)
class LabelCard:
    """Facts of one unseen label. problems: why it is hard to draw; num_training: number of kept images that train it,
    also those in which the filter found it without a request."""

    label: str
    problems: tuple[str, ...]
    rates: Rates
    num_training: int
    partners: tuple[tuple[str, Rates], ...]
    prompts: tuple[PromptRow, ...]
    sheets: tuple[Sheet, ...]
    duplicates: Duplicates
    confusions: tuple[Confusion, ...]
    photos: Sheet
    precision: Precision
    verdict: Verdict


def label_card(
    label: str,
    candidates: Candidates,
    prompts: pd.DataFrame,
    photos: Photos,
    shortfall: str,
    precision: Precision,
    verdict: Verdict,
    settings: DataCard,
) -> LabelCard:
    """Return the card of one label. prompts: all of the run; shortfall: why it missed its quota, else ""."""
    requested = candidates.requested(label)
    rates = rates_of(candidates, requested)
    return LabelCard(
        label=label,
        problems=drawing_problems(rates, shortfall, settings.low_pass_rate),
        rates=rates,
        num_training=int(candidates.carriers(label).sum()),
        partners=tuple(partner_rates(label, candidates)),
        prompts=tuple(prompt_rows(label, candidates, prompts)),
        sheets=tuple(sheets(candidates, requested, settings.num_shown)),
        duplicates=duplicates(candidates, candidates.carriers(label), settings),
        confusions=tuple(confusions(label, candidates, photos)),
        photos=photo_sheet(label, candidates, photos, settings.num_shown),
        precision=precision,
        verdict=verdict,
    )


def hardest_first(cards: Sequence[LabelCard]) -> list[LabelCard]:
    """Sort cards: labels that cannot be drawn, then those hard to draw, then all others, each by pass rate."""
    return sorted(cards, key=lambda card: (card.rates.kept > 0, not card.problems, card.rates.pass_rate or 0))


def drawing_problems(rates: Rates, shortfall: str, low_pass_rate: float) -> tuple[str, ...]:
    """Return reasons why a label is hard to draw, worst first."""
    problems = []
    if not rates.kept:
        problems.append(f"none of {rates.drawn} candidates kept" if rates.drawn else "no candidate drawn")
    if shortfall:
        problems.append(shortfall)
    if rates.kept and rates.kept / rates.drawn < low_pass_rate:
        problems.append(f"only {rates.kept} of {rates.drawn} candidates kept")
    return tuple(problems)


def rates_of(candidates: Candidates, chosen: np.ndarray) -> Rates:
    """Count over the chosen candidates, (N,) bool."""
    kept, judged = candidates.kept & chosen, candidates.judged & chosen
    return Rates(int(chosen.sum()), int(kept.sum()), int(judged.sum()), int((kept & judged).sum()))


def partner_rates(label: str, candidates: Candidates) -> list[tuple[str, Rates]]:
    """Return rates of the label "alone" and with each label requested together with it, lowest pass rate first."""
    requested = candidates.requested(label)
    alone = requested & (candidates.table["requested"].str.len() == 1).to_numpy(bool)
    groups = {"alone": alone}
    groups |= {name: requested & candidates.requested(name) for name in candidates.label_space.unseen if name != label}
    rates = {name: rates_of(candidates, chosen) for name, chosen in groups.items() if chosen.any()}
    return sorted(rates.items(), key=lambda item: item[1].pass_rate or 0)


def prompt_rows(label: str, candidates: Candidates, prompts: pd.DataFrame) -> list[PromptRow]:
    """Return every prompt for the label, lowest pass rate first, those never drawn last."""
    drawn = candidates.table["prompt_id"].to_numpy()
    rows = [
        PromptRow(row.text, tuple(row.labels), row.origin, rates_of(candidates, drawn == row.prompt_id))
        for row in prompts.itertuples()
        if label in row.labels
    ]
    return sorted(rows, key=lambda row: (row.rates.pass_rate is None, row.rates.pass_rate or 0, -row.rates.drawn))


def sheets(candidates: Candidates, requested: np.ndarray, num_shown: int) -> list[Sheet]:
    """Return sheets of kept and rejected candidates, and of those on which the judge disagrees."""
    kept, judged = candidates.kept, candidates.judged
    by_filter = candidates.table["confidence"].to_numpy()
    by_judge = candidates.table["judge_confidence"].to_numpy()
    kinds = (
        ("Kept", "from the surest to the narrowest", kept, by_filter, _spread),
        ("Rejected", "from the narrowest to the surest", ~kept, by_filter, _spread),
        ("Kept, but the judge says no", "the judge's lowest first", kept & ~judged, -by_judge, _first),
        ("Rejected, but the judge says yes", "the judge's highest first", ~kept & judged, by_judge, _first),
    )
    found = []
    for title, about, chosen, order, pick in kinds:
        rows = np.flatnonzero(chosen & requested)
        ranked = rows[np.argsort(-order[rows], kind="stable")]
        tiles = tuple(candidate_tile(candidates, row) for row in pick(ranked, num_shown))
        found.append(Sheet(title, about, len(rows), tiles))
    return found


def candidate_tile(candidates: Candidates, row: int) -> Tile:
    """Return a tile with each requested label's probability by discriminator / judge, and the reason of a rejection."""
    record = candidates.table.iloc[row]
    lines = []
    for name in record["requested"]:
        column = candidates.label_space.unseen.index(name)
        scores = " / ".join(f"{candidates.probabilities[scorer][row, column]:.2f}" for scorer in ROLES)
        lines.append(f"{name} {scores}")
    return Tile(record["image_id"], (*lines, *([] if record["kept"] else [record["reason"]])))


def duplicates(candidates: Candidates, chosen: np.ndarray, settings: DataCard) -> Duplicates:
    """Return near-duplicates among the chosen candidates, (N,) bool."""
    rows, ids = np.flatnonzero(chosen), candidates.table["image_id"]
    num_shown = settings.num_shown // 2
    pairs = closest_pairs(candidates.signatures[rows], num_shown, settings.near_duplicate)
    near = [pair for pair in pairs if pair.similarity >= settings.near_duplicate]
    closest = tuple(
        (Tile(ids[rows[first]], (f"{similarity:.3f}",)), Tile(ids[rows[second]], ()))
        for first, second, similarity in pairs[:num_shown]
    )
    return Duplicates(len(near), len({row for pair in near for row in pair[:2]}), closest)


def photo_sheet(label: str, candidates: Candidates, photos: Photos, num_shown: int) -> Sheet:
    """The photos without the label that rank highest for it; where nobody annotated it, simply the highest."""
    names, index = candidates.label_space.names, candidates.label_space.index(label)
    if (photos.targets[:, index] >= 0).any():
        rows, title = photos.false_alarms(index), "False alarms on test photos"
        about = "among as many best-scored photos as show the label; score, then what the photo shows"
    else:
        rows, title = np.argsort(-photos.scores[:, index], kind="stable"), "Best-scored photos"
        about = "nobody annotated the label; score, then what else the photo is known to show"
    tiles = [
        Tile(photos.ids[row], (f"{photos.scores[row, index]:.2f}", ", ".join(_present(names, photos.targets[row]))))
        for row in rows[:num_shown]
    ]
    return Sheet(title, about, len(rows), tuple(tiles))


def shown_ids(cards: Sequence[LabelCard]) -> Mapping[str, set[str]]:
    """The images the cards show: "generated" and "photos"."""
    tiles = [tile for card in cards for sheet in card.sheets for tile in sheet.tiles]
    tiles += [tile for card in cards for pair in card.duplicates.closest for tile in pair]
    return {
        "generated": {tile.image_id for tile in tiles},
        "photos": {tile.image_id for card in cards for tile in card.photos.tiles},
    }


def _present(names: Sequence[str], targets: np.ndarray) -> list[str]:
    return [name for name, target in zip(names, targets, strict=True) if target == 1]


def _spread(rows: np.ndarray, num_shown: int) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, min(num_shown, len(rows))).round().astype(int)]


def _first(rows: np.ndarray, num_shown: int) -> np.ndarray:
    return rows[:num_shown]
