"""Labels that people corrected, read back as annotations of the data set `folder`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tailorset.commands.importing import import_labels
from tailorset.datasets.folder import Config, build
from tailorset.datasets.reading.annotations import read_truths
from tailorset.exports.parts.source import ExportSource
from tailorset.records import LabelSpace
from tailorset.storage.photo_files import find_photos
from tests.export_products import SEEN, UNSEEN, export, exported, make_products

SPACE = LabelSpace.model_validate(
    {"name": "test", "labels": [{"name": name, "seen": name in SEEN} for name in (*UNSEEN, *SEEN)]}
)


@pytest.fixture
def source(tmp_path: Path) -> ExportSource:
    return make_products(tmp_path / "project", 40, num_photos=60)


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {Path(row.pop("image")).stem: row for row in csv.DictReader(file)}


def expected_row(image: Any) -> dict[str, str]:
    known = dict.fromkeys(image.absent, "0") | dict.fromkeys(image.labels, "1")
    return {label: known.get(label, "") for label in SPACE.names}


def test_fiftyone_gives_back_what_was_exported(source: ExportSource, tmp_path: Path) -> None:
    folder = export("fiftyone", source, tmp_path / "out")
    images = exported(source)
    for split in ("train", "val", "test"):
        table = tmp_path / f"{split}.csv"
        import_labels(folder / split, table, None, SPACE)
        rows = rows_of(table)
        assert rows == {key: expected_row(image) for key, (image, _) in images.items() if image.split == split}


def test_all_splits_of_fiftyone_are_read_at_once(source: ExportSource, tmp_path: Path) -> None:
    folder = export("fiftyone", source, tmp_path / "out")
    table = tmp_path / "corrected.csv"
    import_labels(folder, table, None, SPACE)
    assert rows_of(table) == {key: expected_row(image) for key, (image, _) in exported(source).items()}
    assert read_truths(table, folder, find_photos(folder), SPACE).keys() == {*find_photos(folder).photos}


def test_the_table_is_read_by_the_data_set_folder(source: ExportSource, tmp_path: Path) -> None:
    folder = export("label_studio", source, tmp_path / "out")
    table = tmp_path / "corrected.csv"
    lines = import_labels(folder, table, None, SPACE)
    assert any("40 tasks" in line or "not annotated yet" in line for line in lines)
    truths = read_truths(table, folder, find_photos(folder), SPACE)
    images = exported(source)
    assert truths == {
        image.file or f"images/{key}.png": dict.fromkeys(image.absent, 0) | dict.fromkeys(image.labels, 1)
        for key, (image, _) in images.items()
        if image.source == "real"
    }
    photos = build(Config(images=folder, annotations=table), SPACE, seed=0)
    assert sum(photos.sizes.values()) > 30


def test_a_label_that_was_renamed_since_the_export_is_as_annotated_as_before(
    source: ExportSource, tmp_path: Path
) -> None:
    folder, table = export("fiftyone", source, tmp_path / "out"), tmp_path / "corrected.csv"
    labels = [label.model_dump() for label in SPACE.labels]
    labels[0] |= {"name": "parasol", "aliases": ["umbrella"]}
    import_labels(folder, table, None, LabelSpace.model_validate({"name": "test", "labels": labels}))
    expected = {name: expected_row(image)["umbrella"] for name, (image, _) in exported(source).items()}
    assert {name: row["parasol"] for name, row in rows_of(table).items()} == expected
    assert "0" in expected.values()


@pytest.mark.parametrize("line", ['{"file": "a.png"}', "[1]", "{"])
def test_a_list_of_images_that_is_no_exports_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "images.jsonl").write_text(f"{line}\n")
    (tmp_path / "labels.json").write_text(json.dumps({"classes": ["key"], "labels": {"a": ["key"]}}))
    with pytest.raises(ValueError, match=r"images.jsonl is not that of an export .*: restore it, or move it away"):
        import_labels(tmp_path / "labels.json", tmp_path / "corrected.csv", None, SPACE)


def test_a_correction_in_label_studio_counts(source: ExportSource, tmp_path: Path) -> None:
    folder = export("label_studio", source, tmp_path / "out")
    tasks = json.loads((folder / "tasks.json").read_text())
    task = next(one for one in tasks if one["data"]["source"] == "synthetic")
    choices = {"type": "choices", "from_name": "labels", "to_name": "image", "value": {"choices": ["key", "ball"]}}
    task["annotations"] = [
        {"result": [], "was_cancelled": False},
        {"result": [choices], "was_cancelled": False},
        {"result": [], "was_cancelled": True},
    ]
    corrected, table = tmp_path / "project-1.json", tmp_path / "corrected.csv"
    corrected.write_text(json.dumps([task]))
    lines = import_labels(corrected, table, folder, SPACE)
    expected = {"umbrella": "0", "clock": "0", "boat": "0", "key": "1", "ball": "1", "car": ""}
    assert rows_of(table) == {Path(task["data"]["file"]).stem: expected}  # car is not annotated, as before
    assert any("the last one counts" in line for line in lines)


def test_an_uploaded_picture_is_found_by_its_name(source: ExportSource, tmp_path: Path) -> None:
    folder = export("label_studio", source, tmp_path / "out")
    corrected = tmp_path / "uploads.json"
    corrected.write_text(
        json.dumps([{"data": {"image": "/data/upload/1/ab12cd34-val-000001.png"}, "annotations": [{"result": []}]}])
    )
    import_labels(corrected, tmp_path / "corrected.csv", folder, SPACE)
    assert rows_of(tmp_path / "corrected.csv") == {"val-000001": dict.fromkeys(SPACE.names, "0")}


@pytest.mark.parametrize("name", ["my photo (1).png", "a-b.png", "caf\u00e9.png"])
def test_an_uploaded_picture_is_found_by_the_name_that_label_studio_gave_it(name: str, tmp_path: Path) -> None:
    stored = name.replace(" ", "_").replace("(", "").replace(")", "")
    (tmp_path / name).touch()
    task = {"data": {"image": f"/data/upload/1/ab12cd34-{quote(stored)}"}, "annotations": [{"result": []}]}
    (tmp_path / "tasks.json").write_text(json.dumps([task]))
    import_labels(tmp_path / "tasks.json", tmp_path / "corrected.csv", None, SPACE)
    assert list(rows_of(tmp_path / "corrected.csv")) == [Path(name).stem]


def test_a_name_as_macos_writes_it_is_found(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301.png").touch()
    (tmp_path / "labels.json").write_text(json.dumps({"classes": ["key"], "labels": {"cafe\u0301": ["key"]}}))
    import_labels(tmp_path / "labels.json", tmp_path / "corrected.csv", None, SPACE)
    assert list(rows_of(tmp_path / "corrected.csv")) == ["caf\u00e9"]


@pytest.mark.parametrize("name", ["x.png", "x", "backup/x.png", "backup\\x"])
def test_a_picture_is_found_by_its_path_though_others_have_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    for path in ("x.png", "backup/x.png"):
        (tmp_path / path).touch()
    (tmp_path / "labels.json").write_text(json.dumps({"classes": ["key"], "labels": {name: ["key"]}}))
    import_labels(tmp_path / "labels.json", tmp_path / "corrected.csv", None, SPACE)
    expected = "backup/x.png" if "backup" in name else "x.png"
    assert [line.split(",")[0] for line in (tmp_path / "corrected.csv").read_text().splitlines()[1:]] == [expected]


def test_a_name_without_folders_that_two_pictures_have_is_told(tmp_path: Path) -> None:
    for path in ("a", "b"):
        (tmp_path / path).mkdir()
        (tmp_path / path / "x.png").touch()
    (tmp_path / "labels.json").write_text(json.dumps({"classes": ["key"], "labels": {"x": ["key"]}}))
    with pytest.raises(ValueError, match=r"names x, and .* has a/x.png, b/x.png"):
        import_labels(tmp_path / "labels.json", tmp_path / "corrected.csv", None, SPACE)


def test_a_folder_of_pictures_that_is_not_there_is_told_by_its_option(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"classes": ["key"], "labels": {"x": ["key"]}}))
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere: set --images"):
        import_labels(tmp_path / "labels.json", tmp_path / "corrected.csv", tmp_path / "nowhere", SPACE)


def test_labels_are_not_given_to_a_picture_of_another_name(tmp_path: Path) -> None:
    """Only Label Studio's prefix may be missing, not every beginning before a hyphen."""
    (tmp_path / "1.png").touch()
    (tmp_path / "labels.json").write_text(json.dumps({"classes": ["key"], "labels": {"dog-1": ["key"]}}))
    with pytest.raises(ValueError, match=r"names dog-1, and .* has no such picture"):
        import_labels(tmp_path / "labels.json", tmp_path / "corrected.csv", None, SPACE)


def test_fiftyones_own_form_is_read(tmp_path: Path, source: ExportSource) -> None:
    pictures = export("fiftyone", source, tmp_path / "out") / "val" / "data"
    classes, table = ["key", "ball"], tmp_path / "corrected.csv"
    (tmp_path / "labels.json").write_text(
        json.dumps(
            {
                "classes": classes,
                "labels": {"val-000000": [1], "val-000001": [], "val-000002": "key", "val-000003": None},
            }
        )
    )
    lines = import_labels(tmp_path / "labels.json", table, pictures, SPACE)
    found = {name: {label: row[label] for label in classes} for name, row in rows_of(table).items()}
    assert found == {
        "val-000000": {"key": "0", "ball": "1"},
        "val-000001": {"key": "0", "ball": "0"},
        "val-000002": {"key": "1", "ball": "0"},
    }
    assert {row["car"] for row in rows_of(table).values()} == {""}  # no class there
    assert "         pictures left out, as not labelled in FiftyOne: 1" in lines


@pytest.mark.parametrize("label", ["umbrela", "a/b", "c, d", 'e "f"', "fish 🐟", "two\nlines"])
def test_unknown_labels_are_named(label: str, source: ExportSource, tmp_path: Path) -> None:
    folder = export("fiftyone", source, tmp_path / "out")
    path = folder / "val" / "labels.json"
    content = json.loads(path.read_text())
    content["labels"]["val-000000"] = [{"label": label}]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"Unknown label") as error:
        import_labels(path, tmp_path / "corrected.csv", None, SPACE)
    assert repr(label) in str(error.value)
    assert "Choices: umbrella" in str(error.value)
    assert ".." not in str(error.value)
    assert not (tmp_path / "corrected.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a readable JSON file"),
        ("[" * 100_000, "is not a readable JSON file"),
        ("{}", "labels of no known kind"),
        ('[{"id": 1, "data": {"file": "x.png"}}]', "none of 1 tasks is annotated"),
        ('[{"id": 1, "image": "x.png", "annotations": [{"result": []}]}]', "not JSON-MIN"),
        ('{"classes": null, "labels": {"val-000000": [3]}}', "export them from FiftyOne with their names"),
        ('{"classes": [], "labels": {"nowhere": ["key"]}}', "has no such picture"),
        ('{"classes": [], "labels": {}}', "no picture has labels there"),
        ('{"classes": 4, "labels": {}}', "its `classes` are 4, not a list of names"),
        ('{"classes": ["key", "ball"], "labels": {"val-000000": ["key"], "val-000000.png": []}}', "twice, with other"),
        ('[{"data": 4, "annotations": []}]', r"given\.json is not valid:\n  0\.data: .*, not 4"),
        ('[{"data": {"file": "x"}, "annotations": [{"result": 4}]}]', r"0\.annotations\.0\.result: .*, not 4"),
        ('{"classes": ["Umbrella", "key"], "labels": {"val-000000": ["key"]}}', r"'umbrella' \(there is 'Umbrella'\)"),
        (
            '[{"data": {"file": "x"}, "annotations": [{"result": [{"type": "rectanglelabels", "value": {"x": 1}}]}]}]',
            "labels are given as rectanglelabels: annotate with the choices",
        ),
        (
            '[{"data": {"file": "x"}, "annotations": [{"result": [{"type": "taxonomy", "value": {}}]}]}]',
            "labels are given as taxonomy: annotate with the choices",
        ),
        (
            '[{"data": {"file": "x"}, "annotations": [{"result": [{"type": "choices", "value": {"choices": 4}}]}]}]',
            "choices are 4, not a list of labels",
        ),
    ],
)
def test_files_that_cannot_be_used(content: str, message: str, source: ExportSource, tmp_path: Path) -> None:
    folder = export("fiftyone", source, tmp_path / "out")
    (tmp_path / "given.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        import_labels(tmp_path / "given.json", tmp_path / "corrected.csv", folder, SPACE)


def test_a_source_that_is_not_there_or_has_no_labels_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no .*typo\.json: name FiftyOne's labels\.json"):
        import_labels(tmp_path / "typo.json", tmp_path / "corrected.csv", None, SPACE)
    with pytest.raises(ValueError, match=r"has none of labels\.json, tasks\.json: name the file"):
        import_labels(tmp_path, tmp_path / "corrected.csv", None, SPACE)


def test_a_table_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "corrected.csv").write_text("mine")
    with pytest.raises(ValueError, match="nothing is overwritten"):
        import_labels(tmp_path / "labels.json", tmp_path / "corrected.csv", None, SPACE)


def test_two_tasks_of_a_photo_must_agree(source: ExportSource, tmp_path: Path) -> None:
    """The one that comes last would win, and a correction be lost."""
    folder = export("label_studio", source, tmp_path / "out")
    tasks = json.loads((folder / "tasks.json").read_text())
    task = next(one for one in tasks if one["data"]["source"] == "synthetic")
    for choices in (["key"], ["ball"]):
        result = {"type": "choices", "from_name": "labels", "to_name": "image", "value": {"choices": choices}}
        tasks.append({**task, "annotations": [{"result": [result]}]})
    twice = tmp_path / "project-1.json"
    twice.write_text(json.dumps(tasks))
    with pytest.raises(ValueError, match="is in two tasks, with other labels: delete one of them"):
        import_labels(twice, tmp_path / "corrected.csv", folder, SPACE)
    twice.write_text(json.dumps(tasks[:-1]))
    import_labels(twice, tmp_path / "corrected.csv", folder, SPACE)


def test_the_settings_can_be_pasted_whatever_the_path(source: ExportSource, tmp_path: Path) -> None:
    made = export("fiftyone", source, tmp_path / "out")
    folder = (made / "val").rename(tmp_path / "corrected, v2: mine")
    *_, settings, _ = import_labels(folder, tmp_path / "a: b.csv", None, SPACE)
    pasted = yaml.safe_load(settings.partition("shard_size: ")[2])
    assert pasted == {"name": "folder", "images": str(folder), "annotations": str(tmp_path / "a: b.csv")}


def test_labels_that_are_not_ticked_are_told_to_count_as_absent_if_nothing_else_is_known(
    source: ExportSource, tmp_path: Path
) -> None:
    made = export("fiftyone", source, tmp_path / "out")
    note = "labels that are not ticked count as absent"
    assert note not in " ".join(import_labels(made / "val", tmp_path / "known.csv", None, SPACE))
    elsewhere = (made / "val").rename(tmp_path / "elsewhere")
    assert note in " ".join(import_labels(elsewhere, tmp_path / "unknown.csv", None, SPACE))
