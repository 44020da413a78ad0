"""Measure the toybox's painter: share of replies that meet the prompt contract, and diversity of its phrases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from foundation_settings import load_settings

from tailorset.llms.transformers import Config, build
from tailorset.prompts.report import metrics
from tailorset.prompts.settings import WritePrompts
from tailorset.prompts.writer import write_prompts
from tailorset.records import LabelSpace

QUANTIZATIONS = ("none", "8bit", "4bit")
BATCH_SIZE = 64
ROUND: dict[str, Any] = {"prompts_per_pair": 10, "max_prompts": None, "min_words": 10, "max_attempts": 1, "kinds": []}
MEASURES = ("raw_acceptance", "distinct_1", "distinct_2", "distinct_texts", "origin/llm")


def measure_llm(folder: Path, label_space: LabelSpace) -> dict[str, float]:
    """Flat figures `llm/<quantization>/<measure>` of one round of requests for every pair of unseen labels.

    Prompts missing after the round come from the template; `origin/llm` of `count` are the model's own.
    """
    figures: dict[str, float] = {}
    for quantization in QUANTIZATIONS:
        config = Config(model=str(folder), quantization=quantization, max_new_tokens=40, batch_size=BATCH_SIZE)
        llm = build(config, torch.device("cpu"))
        one_round = WritePrompts.model_validate(ROUND | {"llm": {"name": "transformers"} | config.model_dump()})
        *_, ledger = write_prompts(llm.reply, label_space, one_round, seed=0, batch_size=BATCH_SIZE)
        own = [prompt for prompt in ledger.prompts if prompt.origin == "llm"]
        measured = metrics(ledger.model_copy(update={"prompts": tuple(own)}))
        figures |= {f"llm/{quantization}/{name}": measured[f"prompts/{name}"] for name in MEASURES}
    return figures


def main() -> None:
    settings = load_settings()
    figures = measure_llm(settings.published / "llm", LabelSpace.load(settings.label_space))
    for name, value in figures.items():
        print(f"{name:<32} {value:.3f}")


if __name__ == "__main__":
    main()
