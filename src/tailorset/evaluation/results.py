"""Rows and columns of the results, and the keys of their metrics in reports/metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class MethodRow(NamedTuple):
    """One method of the comparison: its name in tables of scores, its title, and the prefix of its metrics' keys."""

    method: str
    title: str
    prefix: str


CLIP = MethodRow("clip", "raw CLIP", "baseline/clip/")
CLIP_ENSEMBLE = MethodRow("clip_ensemble", "CLIP, ensemble of templates", "baseline/clip_ensemble/")
CLIP_NORMALISED = MethodRow("clip_normalised", "normalised CLIP", "baseline/clip_normalised/")
CLIP_PATCHES = MethodRow("clip_patches", "CLIP with patches and crops", "baseline/clip_patches/")
OURS = MethodRow("ours", "ours", "")
BASELINES = (CLIP, CLIP_ENSEMBLE, CLIP_NORMALISED, CLIP_PATCHES)  # without training
ANNOTATIONS = "annotations"  # in tables of scores: what the images show, 1, 0, or -1 if nobody annotated it

SHOWN = (CLIP, CLIP_PATCHES, OURS)  # rows of the short table of results
MAPS = {"zsl/map": "ZSL mAP", "gzsl/map": "GZSL mAP"}  # key of a metric: its title
USUAL_K = 3  # of F1@k, where several were measured
ACCEPTANCE = "acceptance/"  # begins the keys of what tune_text_encoder measured; none if it tuned nothing


def columns(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return {title: key} of the measures in the short table: mAP, and F1 at 3 labels or at the fewest measured."""
    measured = [int(key.rpartition("_")[2]) for key in metrics if key.startswith("zsl/f1_at_")]
    k = USUAL_K if USUAL_K in measured else min(measured, default=USUAL_K)
    settings = {"ZSL": "zsl", "GZSL": "gzsl"}
    measures = {"mAP": "map", f"F1@{k}": f"f1_at_{k}"}
    return {
        f"{setting} {measure}": f"{prefix}/{key}"
        for setting, prefix in settings.items()
        for measure, key in measures.items()
    }


def shown_rows(metrics: Mapping[str, float]) -> list[list[str]]:
    """Return the short table of results in percent: one row per method, its title first, then one cell per column."""
    keys = columns(metrics).values()
    return [[row.title, *(percent(metrics.get(row.prefix + key)) for key in keys)] for row in SHOWN]


def percent(share: float | None, digits: int = 1, signed: bool = False) -> str:
    """Return a share in percent, without the word: 0.4567 -> "45.7", signed "+45.7"; "-" for None."""
    return "-" if share is None else f"{100 * share:{'+' if signed else ''}.{digits}f}"
