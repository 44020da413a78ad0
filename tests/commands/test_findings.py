"""Findings as `tailorset check` prints them."""

from __future__ import annotations

import pytest

from tailorset.commands.findings import Finding


@pytest.mark.parametrize("end", ["", "."])
def test_a_remedy_follows_a_colon_whether_or_not_the_text_ends_with_a_dot(end: str) -> None:
    finding = Finding("error", "data", f"Unknown label: 'mug'. Choices: cup, key{end}", "see docs/data-sets.md")
    assert finding.sentence == "Unknown label: 'mug'. Choices: cup, key: see docs/data-sets.md"
