"""docs/models.md says of each model what the table of the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tailorset.project.known_models import known_models, licence, obstacle
from tailorset.project.licences import ANSWERS
from tailorset.project.params import named_models
from tailorset.project.presets import load_preset, preset_names
from tailorset.storage.hub import NamedModel

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| `")]
MODELS = {cells[0].strip("`"): cells for cells in ROWS if len(cells) > 3}


@pytest.mark.parametrize("repository", MODELS)
def test_licence_use_and_obstacles_are_those_of_the_table(repository: str) -> None:
    known, cells = licence(NamedModel(model=repository)), MODELS[repository]
    assert cells[2:4] == [known.title, ANSWERS[known.commercial]]
    found = obstacle(repository)
    assert ("gated" in cells[-1]) == bool(found and "accepted its licence" in found.problem)
    assert ("pickles" in cells[-1]) == bool(found and "holds no" in found.problem)


def test_the_removed_models_are_those_of_the_table() -> None:
    removed = {cells[0].strip("`"): cells[1:] for cells in ROWS if len(cells) == 3}
    assert removed == {
        name: [gone.since, f"`{gone.successor}`" if gone.successor else "no mirror is known"]
        for name, gone in known_models().left.items()
    }


def test_every_model_that_a_preset_names_has_its_row() -> None:
    first, _, _ = TEXT.partition("## Others")
    presets = (load_preset(name, ROOT / "presets") for name in preset_names(ROOT / "presets"))
    named = {str(model.repository) for params in presets for _, model in named_models(params) if model.repository}
    assert named == set(re.findall(r"^\| `([^`]+)`", first, flags=re.MULTILINE))
