"""Prompts for single labels and pairs, three wordings each, in words that the tiny text encoders have."""

from __future__ import annotations

from tailorset.records import Prompt, prompt_id

UNSEEN = ("kite", "boat", "clock")
LABELS: list[tuple[str, ...]] = [("kite",), ("boat",), ("clock",), ("kite", "boat"), ("boat", "clock")]
PROMPTS = [
    Prompt(
        prompt_id=prompt_id(labels, i),
        text=f"a photo of {word} {' next to the '.join(labels)}",
        labels=labels,
        origin="llm",
        attempt=1,
    )
    for labels in LABELS
    for i, word in enumerate(("a", "the", "red"))
]
