"""benchmarks/scaling.py: fills the quotas of many labels with blank images, and draws its figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import scaling

ROOT = Path(__file__).resolve().parents[2]


def test_it_measures_every_size(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "models").mkdir(exist_ok=True)
    (project / "models" / "foundation").symlink_to(ROOT / "models" / "foundation")
    scaling.main(["--labels", "4", "7", "--images-per-label", "3", "--picture", "scaling.png"])
    sizes = json.loads(Path("reports/scaling.json").read_text())
    assert [size["labels"] for size in sizes] == [4, 7]
    for size in sizes:
        assert size["labels"] <= size["images"] <= 3 * size["labels"]  # an image of two labels counts for both
        assert size["seconds"] > 0
    assert Path("scaling.png").stat().st_size > 1000
    assert "labels  images" in capsys.readouterr().out
