"""Rows and columns of the results, and the keys of their metrics in reports/metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One method of the comparison: its name in tables of scores, its title, and the prefix of its metrics' keys."""

    method: str
    title: str
    prefix: str


CLIP = Row("clip", "raw CLIP", "baseline/clip/")
CLIP_ENSEMBLE = Row("clip_ensemble", "CLIP, ensemble of templates", "baseline/clip_ensemble/")
CLIP_NORMALISED = Row("clip_normalised", "normalised CLIP", "baseline/clip_normalised/")
OURS = Row("ours", "ours", "")

SHOWN = (CLIP, CLIP_NORMALISED, OURS)  # rows of the short table of results
MAPS = {"zsl/map": "ZSL mAP", "gzsl/map": "GZSL mAP"}  # key of a metric: its title
COLUMNS = {"ZSL mAP": "zsl/map", "ZSL F1@3": "zsl/f1_at_3", "GZSL mAP": "gzsl/map", "GZSL F1@3": "gzsl/f1_at_3"}
ACCEPTANCE = tuple(f"acceptance/{when}/{who}" for when in ("before", "after") for who in ("discriminator", "judge"))


def shown_rows(metrics: Mapping[str, float]) -> list[list[str]]:
    """Return the short table of results in percent: one row per method, its title first, then one cell per column."""
    return [[row.title, *(percent(metrics.get(row.prefix + key)) for key in COLUMNS.values())] for row in SHOWN]


def acceptance_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return how often discriminator and judge accept generated images, before and after tuning.

    metrics: those of tune_text_encoder.

    Raises:
        ValueError: one of them is missing.
    """
    if missing := [key for key in ACCEPTANCE if key not in metrics]:
        raise ValueError(f"the metrics of tune_text_encoder lack {missing}: run `dvc repro tune_text_encoder`")
    return {key: metrics[key] for key in ACCEPTANCE}


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share in percent, without the sign: 0.4567 -> "45.7"; "-" for None."""
    return "-" if share is None else f"{100 * share:.{digits}f}"
