"""Figures of the prompts, and the word about replies that were refused."""

from __future__ import annotations

import pytest

from tailorset.prompts.report import distinct


def test_distinct_counts_ngrams_by_hand() -> None:
    texts = ["a cup and a cup", "A cup!"]  # unigrams a cup and a cup a cup; bigrams a-cup cup-and and-a a-cup a-cup
    assert distinct(texts, 1) == pytest.approx(3 / 7)
    assert distinct(texts, 2) == pytest.approx(3 / 5)
    assert distinct([], 2) == 0
