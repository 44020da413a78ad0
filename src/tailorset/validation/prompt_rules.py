"""Rules on the prompts: they name the labels they request, and request only what generation may draw."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from tailorset.prompts.contract import main_cause
from tailorset.records import ORIGINS, LabelSpace
from tailorset.validation.rules import DataRule, Table, blank, listed, one_of, some_rows, unique, where


def prompt_table(
    prompts: pd.DataFrame, label_space: LabelSpace, max_template_share: float, refused: Mapping[str, float]
) -> Table:
    frame = prompts[["prompt_id", "text", "origin"]].assign(
        row=prompts["prompt_id"],
        unnamed=[
            listed(set(labels) & set(label_space.names) - label_space.named_in(text))
            for text, labels in zip(prompts["text"], prompts["labels"], strict=True)
        ],
        not_unseen=[listed(set(labels) - set(label_space.unseen)) for labels in prompts["labels"]],
        confused=where(prompts["labels"].map(frozenset).isin(label_space.confusable), "a confusable pair"),
        from_template=prompts["origin"].eq("template").astype(float),
    )
    rewrite = "run write_prompts again"
    cause = main_cause(refused) if any(refused.values()) else "choose a larger LLM, more write_prompts.max_attempts"
    fewer = f"{cause}, or raise validate_data.max_template_share"
    share = {"column": "from_template", "min_value": 0.0, "max_value": max_template_share}
    return Table(
        "prompts",
        frame,
        [
            some_rows("there are prompts", rewrite),
            unique("prompt ids differ", "prompt_id", rewrite),
            unique("prompt texts differ", "text", "raise write_prompts.llm.temperature for more variety", "warning"),
            one_of("origin is known", "origin", list(ORIGINS), rewrite),
            blank(
                "every prompt names its labels", "unnamed", "run write_prompts again, or add the wording as an alias"
            ),
            blank("prompts ask for unseen labels only", "not_unseen", "run write_prompts again for this label space"),
            blank("prompts ask for no confusable pair", "confused", "run write_prompts again for this label space"),
            DataRule("few prompts are templates", "ExpectColumnMeanToBeBetween", share, fewer),
        ],
    )
