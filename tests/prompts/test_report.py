"""Figures of the prompts."""

from __future__ import annotations

import pytest

from tailorset.prompts.contract import REASONS
from tailorset.prompts.report import distinct, warning


def test_distinct_counts_ngrams_by_hand() -> None:
    texts = ["a cup and a cup", "A cup!"]  # unigrams a cup and a cup a cup; bigrams a-cup cup-and and-a a-cup a-cup
    assert distinct(texts, 1) == pytest.approx(3 / 7)
    assert distinct(texts, 2) == pytest.approx(3 / 5)
    assert distinct([], 2) == 0


def test_a_warning_names_the_main_cause_only_if_more_replies_were_refused_than_accepted() -> None:
    figures = {f"prompts/rejected/{reason}": 0.0 for reason in REASONS}
    figures |= {"prompts/count": 10, "prompts/origin/template": 4, "prompts/rejected/too_short": 6}
    assert warning(figures) == ""
    assert "6 of 7 refused replies" in warning(figures | {"prompts/rejected/duplicate": 1})
