"""Photos of val and test must show what is to be measured on them."""

from __future__ import annotations

import pandas as pd
import pytest

from tailorset.datasets.reading.report import check_measurable
from tailorset.records import Label, LabelSpace

SPACE = LabelSpace(name="two", labels=(Label(name="cup", seen=True), Label(name="fish", seen=False)))


def check(val: tuple[int, int], test: tuple[int, int]) -> None:
    targets = pd.DataFrame([("a", *val), ("b", *test)], columns=["image_id", "cup", "fish"])
    check_measurable(pd.Series(["val", "test"]), targets, SPACE)


@pytest.mark.parametrize(("val", "test"), [((0, 1), (1, 1)), ((-1, -1), (-1, -1)), ((0, 0), (0, 1))])
def test_splits_that_show_an_unseen_label_or_are_not_used_pass(val: tuple[int, int], test: tuple[int, int]) -> None:
    check(val, test)


@pytest.mark.parametrize(
    ("val", "test", "split"), [((1, 0), (0, 1), "val"), ((0, 1), (1, 0), "test"), ((0, 1), (0, 0), "test")]
)
def test_a_split_on_which_nothing_can_be_measured_is_refused(
    val: tuple[int, int], test: tuple[int, int], split: str
) -> None:
    with pytest.raises(ValueError, match=rf"none of 1 {split} images shows an unseen label \(fish\).*num_{split}"):
        check(val, test)
