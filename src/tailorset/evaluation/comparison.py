"""Methods that are compared on the same images: CLIP without training in four ways, and the classifier.

Shapes: N images, L labels, D joint width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from tailorset.clip.dense_features import dense_encoder
from tailorset.clip.model import CLIP_MEMORY_REMEDY, Clip, normalise_scores
from tailorset.clip.patches import patch_logits
from tailorset.compute.memory import ShrinkingBatches
from tailorset.evaluation.metrics import Normalise, as_is, average_precisions, zero_shot_metrics
from tailorset.evaluation.results import (
    ANNOTATIONS,
    BASELINES,
    CLIP,
    CLIP_ENSEMBLE,
    CLIP_NORMALISED,
    CLIP_PATCHES,
    MethodRow,
)
from tailorset.evaluation.score_table import read_scores, score_table
from tailorset.records import LabelSpace

BATCH_SIZE = 128
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method:
    """A row of the comparison. scores: (N, L)."""

    row: MethodRow
    scores: Tensor

    @property
    def normalise(self) -> Normalise:
        """Normalisation of the columns that are compared."""
        return normalise_scores if self.row == CLIP_NORMALISED else as_is


def clip_methods(
    clip: Clip, images: Tensor, label_space: LabelSpace, template: str, templates: Sequence[str]
) -> list[Method]:
    """Score uint8 images by CLIP without any training: raw, by an ensemble of templates, normalised, with patches.

    The last is left out, with a warning, where the visual tower has no features of positions.
    """
    names = label_space.names
    texts, ensemble = clip.encode_texts(names, template), clip.encode_ensemble(names, templates)
    logits, of_ensemble = clip_logits(clip.logits, images, torch.cat([texts, ensemble])).chunk(2, 1)
    methods = [
        Method(CLIP, logits),
        Method(CLIP_ENSEMBLE, of_ensemble),
        Method(CLIP_NORMALISED, logits),
    ]
    try:
        dense_encoder(clip.model.visual)
    except ValueError as error:
        log.warning("no row %r: %s", CLIP_PATCHES.title, error)
        return methods
    return [*methods, Method(CLIP_PATCHES, clip_logits(partial(patch_logits, clip), images, texts))]


@torch.no_grad()
def clip_logits(score: Callable[[Tensor, Tensor], Tensor], images: Tensor, text_features: Tensor) -> Tensor:
    """Return the scores (N, L) of uint8 images, in batches.

    score: images (B, 3, H, W) in [0, 1] and text features (L, D) -> (B, L).
    """
    batches = ShrinkingBatches(BATCH_SIZE, "zero-shot CLIP", CLIP_MEMORY_REMEDY)
    return batches.concatenated(lambda batch: score(batch.float() / 255, text_features), images)


def comparison_metrics(
    methods: Sequence[Method], targets: Tensor, label_space: LabelSpace, top_k: Sequence[int]
) -> dict[str, float]:
    """Return the ZSL and GZSL metrics of all methods, each with its prefix."""
    metrics: dict[str, float] = {}
    for method in methods:
        values = zero_shot_metrics(method.scores, targets, label_space, top_k, method.normalise)
        metrics |= {f"{method.row.prefix}{key}": value for key, value in values.items()}
    return metrics


def per_label_table(methods: Sequence[Method], targets: Tensor, label_space: LabelSpace) -> pd.DataFrame:
    """Return label, seen, positives and each method's average precision (empty without a positive).

    Unseen labels are scored among the unseen ones, so the mean over them is `zsl/map`; seen labels among all.
    """
    names = label_space.names
    table = pd.DataFrame({"label": names, "seen": [name in label_space.seen for name in names]})
    table["positives"] = (targets == 1).sum(0).numpy()
    unseen = label_space.columns(label_space.unseen)
    for method in methods:
        values = average_precisions(method.normalise(method.scores), targets)
        values[unseen] = average_precisions(method.normalise(method.scores[:, unseen]), targets[:, unseen])
        table[method.row.method] = values.numpy()
    return table


def all_scores(
    methods: Sequence[Method], targets: Tensor, image_ids: Sequence[str], names: Sequence[str]
) -> pd.DataFrame:
    """Return the annotations and the scores of all methods, before any normalisation, as one table."""
    annotations = score_table(ANNOTATIONS, targets, image_ids, names)
    return pd.concat([annotations, method_scores(methods, image_ids, names)])


def method_scores(methods: Sequence[Method], image_ids: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Return the scores of all methods, before any normalisation, as one table."""
    return pd.concat([score_table(method.row.method, method.scores, image_ids, names) for method in methods])


def read_baselines(path: Path, image_ids: Sequence[str], names: Sequence[str]) -> list[Method]:
    """Read the methods without training that `score_baselines` stored; errors as in `read_scores`."""
    scores = read_scores(path, image_ids, names, "score_baselines")
    return [Method(row, scores[row.method]) for row in BASELINES if row.method in scores]
