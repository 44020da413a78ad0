"""The classifier that training keeps, and notes if training did not help.

Candidates are raw CLIP itself, the start of training, and the classifier after each epoch; then, if the settings ask
for them, means of its weights with those at the start, and the best of all these with a cache of generated images.
"""

from __future__ import annotations

from collections.abc import Mapping

from tailorset.evaluation.results import CLIP, MAPS, percent

RAW_CLIP, START = -1, 0  # candidates before the epochs 1, 2, ...
SEEN_MAP = "val/seen/map"  # in a history if the annotations of unseen labels are to choose nothing
TO_TRY = (
    "To try: see in reports/train_classifier/plots/augmented.png whether augmentation leaves the labels visible; a"
    " lower train_classifier.learning_rate; more photos; more generated images, and other wordings of labels that"
    " the data card calls hard to draw; another backbone."
)

History = list[dict[str, float]]  # each candidate's `epoch` and its metrics on val: raw CLIP, start, epoch 1, 2, ...


def best_candidate(candidates: History) -> dict[str, float]:
    """Return the best by harmonic mean of ZSL and GZSL mAP on val, the first of equals; or by mAP of its seen labels.

    Training must beat raw CLIP: candidates that are below it in either are passed over.
    """
    of_seen = SEEN_MAP in candidates[0]
    goal, floors = (SEEN_MAP, [SEEN_MAP]) if of_seen else ("val/harmonic_map", [f"val/{key}" for key in MAPS])
    raw = next((row for row in candidates if row["epoch"] == RAW_CLIP), None)
    fair = [row for row in candidates if raw is None or all(row[key] >= raw[key] for key in floors)]
    return max(fair, key=lambda row: row[goal])


def selection_metrics(history: History) -> dict[str, float]:
    """Return all metrics of the kept candidate, and the mAPs of raw CLIP, the start and the best candidate after it."""
    kept, (raw, start, *later) = best_candidate(history), history
    epochs = [row for row in later if row["epoch"] > START]
    metrics = {"best_epoch": kept["epoch"]} | {key: value for key, value in kept.items() if key != "epoch"}
    for name, row in (("raw_clip", raw), ("start", start), ("trained", best_candidate(epochs))):
        metrics |= {f"val/{name}/{key}": row[f"val/{key}"] for key in MAPS}
    return metrics


def training_notes(metrics: Mapping[str, float]) -> list[str]:
    """Return sentences on where training did not help; none if it helped.

    metrics: of train_classifier, and of evaluate if it has run.
    """
    notes = list(_problems(metrics))
    return [*notes, TO_TRY] if notes else []


def is_untrained(metrics: Mapping[str, float]) -> bool:
    """Tell whether the kept classifier has learned nothing from images."""
    return metrics.get("best_epoch", 1) in (RAW_CLIP, START) and "cache_alpha" not in metrics


def _problems(metrics: Mapping[str, float]) -> list[str]:
    if is_untrained(metrics):
        figures = ", ".join(
            f"{name} {_points(metrics, f'val/{key}/')}"
            for key, name in (("raw_clip", "raw CLIP"), ("start", "the start of training"), ("trained", "best epoch"))
        )
        kept = "raw CLIP itself" if metrics["best_epoch"] == RAW_CLIP else "the start of training: calibrated CLIP"
        return [
            f"Training did not help: no epoch beats raw CLIP on val, so the classifier is {kept}; it learned nothing"
            f" from photos or generated images. ZSL / GZSL mAP on val, in %: {figures}."
        ]
    return [
        f"On {where} the classifier is below raw CLIP in {name}: {percent(ours)} instead of {percent(raw)} %."
        for where, prefix, raw_prefix in (("val", "val/", "val/raw_clip/"), ("the test split", "", CLIP.prefix))
        for key, name in MAPS.items()
        if (ours := metrics.get(prefix + key, 1.0)) < (raw := metrics.get(raw_prefix + key, 0.0))
    ]


def _points(metrics: Mapping[str, float], prefix: str) -> str:
    return " / ".join(percent(metrics.get(prefix + key)) for key in MAPS)
