"""The ledger and the table of prompts on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailorset.prompts.files import read_ledger


def test_a_damaged_ledger_names_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_text('{"attempt": 1, "prom')
    with pytest.raises(ValueError, match="delete it"):
        read_ledger(path)
