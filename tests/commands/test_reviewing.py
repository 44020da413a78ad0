"""Verdicts on generated images are checked before a run starts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from typer.testing import CliRunner

from tailorset import cli

ROOT = Path(__file__).resolve().parents[2]


def check() -> tuple[int, str]:
    answer = CliRunner().invoke(cli.app, ["check"], env={"COLUMNS": "250"})
    return answer.exit_code, answer.output


def test_check_reads_the_verdicts_of_a_person(project: Path) -> None:
    (project / "models").mkdir()
    (project / "models" / "foundation").symlink_to(ROOT / "models" / "foundation")
    review = project / "data" / "labels" / "review.yaml"
    entry = f'"a-0000": {{"sha256": "{"0" * 64}", "labels": ["boot"]}}\n'
    review.write_text(entry)
    assert check()[0] == 0  # no such picture: an old one may come back
    Path("data/synthetic").mkdir()
    drawn = pd.DataFrame({"image_id": ["a-0000"], "sha256": ["0" * 64], "labels": [["boat", "cup"]]})
    drawn.to_parquet("data/synthetic/manifest.parquet")
    code, output = check()
    assert code == 1
    assert "review.yaml, image a-0000: Unknown unseen label: 'boot'. Did you mean 'boat'?" in output
    drawn.assign(labels=[["sofa", "cup"]]).to_parquet("data/synthetic/manifest.parquet")
    assert check()[0] == 0  # drawn for other labels, so it will be drawn anew
    for text, message in {
        "a-0000: boat\n": "a-0000: Input should be",
        entry.replace("0" * 64, "0"): "a-0000.sha256: String should match",
        f"# two\n{entry}{entry}": "review.yaml has 'a-0000' twice, in lines 2 and 3: remove one of them",
        f"<<<<<<< HEAD\n{entry}=======\n": "review.yaml cannot be read",
    }.items():
        review.write_text(text)
        code, output = check()
        assert (code, message in output) == (1, True), output
