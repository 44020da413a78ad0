"""The cards of all unseen labels, and the facts of the run at the head of the page."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from tailorset.card.candidates import Candidates
from tailorset.card.confusions import Photos
from tailorset.card.facts import LabelCard, label_card
from tailorset.card.settings import DataCard
from tailorset.card.verdicts import precisions, verdict
from tailorset.evaluation.bootstrap import Interval
from tailorset.records import COPIES
from tailorset.settings import PluginBlock

PRIVACY = "prompts or images derive from photos and may show what is private in them: share them like the photos"


def make_cards(
    candidates: Candidates,
    prompts: pd.DataFrame,
    photos: Photos,
    clip: Tensor,
    shortfalls: Mapping[str, str],
    gains: Mapping[str, Interval],
    settings: DataCard,
    seed: int,
) -> list[LabelCard]:
    """Return one card per unseen label, in label-space order.

    clip: raw CLIP's scores of the photos, (N, L). shortfalls: label -> why generation missed its quota. gains: label ->
    average precision that generated images add, if the ladder measured it.
    """
    space = candidates.label_space
    columns = space.columns(space.unseen)
    ours, targets = torch.from_numpy(photos.scores), torch.from_numpy(photos.targets)
    measured = precisions(ours[:, columns], clip[:, columns], targets[:, columns], settings.num_resamples, seed)
    return [
        label_card(
            label,
            candidates,
            prompts,
            photos,
            shortfalls.get(label, ""),
            precision,
            verdict(gains.get(label), settings.min_gain),
            settings,
        )
        for label, precision in zip(space.unseen, measured, strict=True)
    ]


def own_photo_facts(
    table: pd.DataFrame, num_learned: int = 0, num_captioned: int = 0, strength: float | None = None
) -> dict[str, str]:
    """Return facts on photos from which the generator learns, and from which prompts and images start; {} if none do.

    table: of the candidates. num_learned: photos that the UNet is tuned on, at most. num_captioned: photos whose
    captions are scenes, at most. strength: of image-to-image.
    """
    facts = {}
    if num_learned:
        facts["look of images"] = f"learned from at most {num_learned} annotated photos"
    if num_captioned:
        facts["scenes of prompts"] = f"captions of at most {num_captioned} photos"
    if strength is not None:
        facts["image-to-image"] = (
            f"from {table['photo_id'].nunique()} photos, strength {strength:g}; {int(table[COPIES].sum())} of"
            f" {len(table)} candidates rejected as near-duplicates of their photos"
        )
    return facts | ({"privacy": PRIVACY} if facts else {})


def run_facts(candidates: Candidates, filter_images: PluginBlock, settings: DataCard) -> dict[str, object]:
    """Return facts of the run without time or place, so that the same run gives the same page."""
    space = candidates.label_space
    rule = ", ".join(f"{key} {value}" for key, value in filter_images.config.model_dump().items())
    return {
        "label space": f"{space.name}: {len(space.unseen)} unseen, {len(space.seen)} seen",
        "candidates": f"{len(candidates.table)} drawn, {int(candidates.kept.sum())} kept",
        "filter": f"{filter_images.name}, {rule}",
        "hard to draw": f"under quota, or a pass rate below {settings.low_pass_rate:.0%}",
        "near-duplicates": f"pixels correlate by {settings.near_duplicate} or more",
        "worth generating": f"yes if all of the interval lies above {settings.min_gain:g} AP, no if none of it does",
    }
