"""The description beside an export: every file, the fields, where the set comes from, and how it may be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tailorset.exports.parts.croissant import FIELDS
from tailorset.exports.parts.run import IMAGES
from tailorset.plugins import EXPORTS, plugin_names
from tailorset.storage.checksums import file_digest
from tests.export_products import export, make_products


def described(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "croissant.json").read_text())
    return content


@pytest.mark.parametrize("name", plugin_names(EXPORTS))
def test_every_file_is_described(name: str, tmp_path: Path) -> None:
    folder = export(name, make_products(tmp_path / "project", 20, num_photos=6), tmp_path / "out")
    entries = described(folder)["distribution"]
    found: set[Path] = set()
    for entry in entries:
        if entry["@type"] == "cr:FileObject":
            assert entry["sha256"] == file_digest(folder / entry["contentUrl"])
            found.add(folder / entry["contentUrl"])
        else:
            files = set(folder.glob(entry["includes"]))
            assert files
            found |= files
    assert found | {folder / "croissant.json"} == {path for path in folder.rglob("*") if path.is_file()}
    assert len({entry["@id"] for entry in entries}) == len(entries)


def test_the_fields_are_those_of_the_table_of_images(tmp_path: Path) -> None:
    folder = export("coco", make_products(tmp_path / "project", 20), tmp_path / "out")
    columns = json.loads((folder / IMAGES).read_text().partition("\n")[0])
    assert columns.keys() - FIELDS.keys() == {"scores", "prompt_id"}
    assert not FIELDS.keys() - columns.keys()


def test_origin_licences_and_limits(tmp_path: Path) -> None:
    content = described(export("coco", make_products(tmp_path / "project", 20), tmp_path / "out"))
    made = content["prov:wasGeneratedBy"]
    assert made["prov:label"] == "generate images"
    assert made["prov:used"][0]["prov:label"] == "steps: 5"
    assert made["prov:wasAssociatedWith"][0]["prov:label"] == "model"
    assert content["license"] == ["Apache-2.0"]
    assert content["usageInfo"][0]["description"] == "commercial use is allowed"
    assert content["rai:dataBiases"] == ["none known"]
    assert "datePublished" not in content  # whoever publishes it knows the day
