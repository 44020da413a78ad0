"""Photos and annotations that are not there: the error names the value, the choices and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailorset.commands.annotating import PhotoDesk
from tailorset.commands.new import empty_table
from tailorset.datasets.reading.annotations import read_truths
from tailorset.messages import count
from tailorset.records import LabelSpace
from tailorset.storage.photo_files import find_photos

SPACE = LabelSpace.model_validate(
    {"name": "office", "labels": [{"name": name, "seen": False} for name in ("mug", "lamp", "sofa")]}
)


def test_an_empty_folder_names_the_kinds_and_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no file that can be read: images end with .*set prepare_dataset"):
        find_photos(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"holds 1 file and no image \(notes.txt\): images end with .avif"):
        find_photos(tmp_path)


def test_missing_annotations_name_the_choices_and_the_command_that_makes_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    with pytest.raises(ValueError, match=r"no file of annotations .*none.csv: .*folders, or to null.*annotate"):
        read_truths(tmp_path / "none.csv", tmp_path, find_photos(tmp_path), SPACE)


def test_photos_added_after_the_table_was_written_are_named(tmp_path: Path) -> None:
    photos, table = tmp_path / "photos", tmp_path / "table.csv"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"a")
    table.write_text(empty_table(find_photos(photos).photos, SPACE))
    assert PhotoDesk(table, photos, find_photos(photos), SPACE).help == f"Saved to {table}"
    (photos / "b.jpg").write_bytes(b"b")
    said = PhotoDesk(table, photos, find_photos(photos), SPACE).help
    assert f"; 1 photo in {photos} without a row there: b.jpg. To annotate one, add a line with its name" in said


def test_a_number_has_its_noun_in_the_right_form() -> None:
    assert [count(number, "photo") for number in (0, 1, 2000)] == ["0 photos", "1 photo", "2,000 photos"]
