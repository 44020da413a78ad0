"""The one mask of requested labels, and the numbers of repeated prompts."""

from __future__ import annotations

import pytest

from tailorset.records import requested_mask
from tailorset.seeding import occurrence_numbers


def test_the_mask_marks_the_requested_labels_in_the_order_of_the_labels() -> None:
    mask = requested_mask([("clock", "boat"), ("fish",)], ("boat", "clock", "fish"))
    assert mask.tolist() == [[True, True, False], [False, False, True]]
    assert requested_mask([], ("boat", "clock")).shape == (0, 2)


@pytest.mark.parametrize("requested", [(), ("kite",), ("boat", "kite")])
def test_an_unknown_label_or_no_label_is_refused_with_the_choices(requested: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"give one or more of \['boat', 'clock'\]"):
        requested_mask([("boat",), requested], ("boat", "clock"))


def test_repeated_keys_are_numbered_from_zero() -> None:
    assert occurrence_numbers("abacab") == [0, 0, 1, 0, 2, 1]
