"""Paths of the settings and of the stages' products, relative to the folder in which a stage runs."""

from __future__ import annotations

from pathlib import Path

PARAMS = Path("params.yaml")
MODELS = Path("models")
REVIEW = Path("data/labels/review.yaml")  # verdicts of a person; in git
REAL = Path("data/real")
PREPARED = Path("data/prepared.json")
PROMPTS = Path("data/prompts/prompts.parquet")
UNET_LORA = MODELS / "unet_lora"
LORA = MODELS / "text_encoder_lora"
SYNTHETIC = Path("data/synthetic")
FILTERED = Path("data/filtered")
CLASSIFIER = MODELS / "classifier"
THRESHOLDS = MODELS / "thresholds.json"
EXAMPLES = MODELS / "examples"
NOVELTY = MODELS / "novelty.safetensors"
FITTED_TO = MODELS / "fitted_to.sha256"  # of the classifier, for which thresholds and novelty are
MEASURED = MODELS / "measured.json"
MODEL_CARD = MODELS / "MODEL_CARD.md"
ADDED_DATA, ADDED_MODELS = Path("data/added"), MODELS / "added"  # of `tailorset add-label`, a folder per addition
REPORTS = Path("reports")
BASELINE_SCORES = REPORTS / "score_baselines" / "scores.parquet"
SCORES = REPORTS / "evaluate" / "scores.parquet"
PER_LABEL = REPORTS / "evaluate" / "per_label.csv"


def is_own_folder(root: Path) -> bool:
    """Check that stages run in the project's own folder: points of a sweep and of the ladder run in folders like it."""
    return root.resolve() == Path.cwd().resolve()
