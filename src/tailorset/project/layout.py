"""Paths of the settings and of the stages' products, relative to the project's folder."""

from __future__ import annotations

from pathlib import Path

PARAMS = Path("params.yaml")
REAL = Path("data/real")
PROMPTS = Path("data/prompts/prompts.parquet")
LORA = Path("models/text_encoder_lora")
SYNTHETIC = Path("data/synthetic")
FILTERED = Path("data/filtered")
CLASSIFIER = Path("models/classifier")
THRESHOLDS = Path("models/thresholds.json")
EXAMPLES = Path("models/examples")
NOVELTY = Path("models/novelty.safetensors")
MEASURED = Path("models/measured.json")
MODEL_CARD = Path("models/MODEL_CARD.md")
REPORTS = Path("reports")
SCORES = REPORTS / "evaluate" / "scores.parquet"
