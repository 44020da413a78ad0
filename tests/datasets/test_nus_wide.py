"""NUS-WIDE on miniature trees in the official format, and each kind of damage."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tailorset.datasets.nus_wide import Config, OfficialFiles, build, shown_labels
from tailorset.datasets.reading.photo_set import PhotoSet
from tailorset.records import LabelSpace, RealSample
from tests.unreadable import forbid

ROOT = Path(__file__).resolve().parents[2]
CONCEPTS = ("airport", "cat", "sky")
TAGS = ("nature", "sky", "blue", "red")  # sky is a concept too: its ground truth counts, not the tag
LINES = [f"actor\\{number:04d}_{1000 + number}.jpg" for number in range(12)]
TRAIN = LINES[:8]
SPACE = LabelSpace.model_validate(
    {
        "name": "small",
        "labels": [{"name": name, "seen": name not in CONCEPTS} for name in ("nature", "blue", "red", *CONCEPTS)],
    }
)
TRUTH = np.random.default_rng(3).integers(0, 2, (12, 3))  # (images, concepts)
TAGGED = np.random.default_rng(4).integers(0, 2, (12, 4))  # (images, tags)
TAGGED[:, 0] = 1
TAGGED[6], TRUTH[6] = 0, 0


@pytest.fixture
def nus(tmp_path: Path) -> Path:
    files = {
        "ConceptsList/Concepts81.txt": "\n".join(CONCEPTS),
        "NUS_WID_Tags/TagList1k.txt": "\r\n".join(TAGS) + "\r\n\r\n",
        "NUS_WID_Tags/AllTags1k.txt": "".join("\t".join(map(str, row)) + "\t\r\n" for row in TAGGED),
        "ImageList/Imagelist.txt": "\n".join(LINES),
        "ImageList/TrainImagelist.txt": "\n".join(TRAIN),
        "ImageList/TestImagelist.txt": "\n".join(LINES[8:]),
        "Groundtruth/TrainTestLabels/Labels_cat_Train.txt": "0",
    }
    for column, name in enumerate(CONCEPTS):
        files[f"Groundtruth/AllLabels/Labels_{name}.txt"] = "\n".join(map(str, TRUTH[:, column])) + "\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "Flickr" / "actor").mkdir(parents=True)
    for number, line in enumerate(LINES):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "Flickr" / line.replace("\\", "/"))
    return tmp_path


def dataset(root: Path, **settings: Any) -> PhotoSet:
    values = {"num_val": 2, "train_images": "any_seen", "test_images": "all"} | settings
    return build(Config(root=root, images=root / "Flickr", image_px=16, **values), SPACE, 0)


def expected(number: int) -> set[str]:
    concepts = {name for name, present in zip(CONCEPTS, TRUTH[number], strict=True) if present}
    tags = {name for name, present in zip(TAGS, TAGGED[number], strict=True) if present and name not in CONCEPTS}
    return concepts | tags


def shown(sample: RealSample) -> set[str]:
    return {name for name, present in sample.targets.items() if present}


def samples(data: PhotoSet, split: Any) -> list[RealSample]:
    found = list(data.samples(split))
    assert all(isinstance(sample, RealSample) for sample in found)
    return found  # type: ignore[return-value]


def test_concepts_come_from_the_ground_truth_and_other_labels_from_the_tags(nus: Path) -> None:
    data = dataset(nus)
    for split in ("val", "test"):
        for sample in samples(data, split):
            assert shown(sample) == expected(int(sample.image_id.removeprefix("nus-")))
            assert set(sample.targets) == set(SPACE.names)
    for sample in samples(data, "train"):
        assert shown(sample) == expected(int(sample.image_id.removeprefix("nus-"))) - set(CONCEPTS)
    assert {sample.image_id for sample in samples(data, "test")} == {f"nus-{number:06d}" for number in range(8, 12)}


def test_a_label_is_read_by_all_its_names_and_the_ground_truth_of_one_counts_before_tags(nus: Path) -> None:
    names = {"red": ["blue"], "nature": ["sky"], "cat": [], "airport": []}  # blue and red are tags, sky is a concept
    labels = [{"name": name, "seen": name == "red", "aliases": aliases} for name, aliases in names.items()]
    space = LabelSpace.model_validate({"name": "synonyms", "labels": labels})
    found = list(shown_labels(OfficialFiles(nus), space, len(LINES)))
    assert ["red" in labels for labels in found] == [bool(tagged[2] or tagged[3]) for tagged in TAGGED]
    assert ["nature" in labels for labels in found] == [bool(truth[2]) for truth in TRUTH]


def test_images_without_a_label_are_counted_and_no_use(nus: Path) -> None:
    data = dataset(nus)
    assert "12 images are listed; 1 of them show no label" in data.notes[0]
    assert "7 of 8 images show a seen label" in data.notes[1]
    assert "nus-000006" not in {sample.image_id for split in ("train", "val") for sample in samples(data, split)}


def test_dead_images_stop_or_are_counted(nus: Path) -> None:
    (nus / "Flickr" / "actor" / "0009_1009.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 12 images of NUS-WIDE are missing.*0009_1009.jpg.*missing to skip"):
        dataset(nus)
    data = dataset(nus, missing="skip")
    assert "1 of 12 images of NUS-WIDE are missing" in data.notes[-1]
    assert len(samples(data, "test")) == 3


def test_pipes_and_links_to_nothing_count_as_dead_and_a_locked_folder_is_the_cause(
    nus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, make in ((9, os.mkfifo), (10, lambda path: path.symlink_to("nowhere.jpg"))):
        path = nus / "Flickr" / LINES[number].replace("\\", "/")
        path.unlink()
        make(path)
    data = dataset(nus, missing="skip")
    assert "2 of 12 images of NUS-WIDE are missing" in data.notes[-1]
    assert len(samples(data, "test")) == 2
    forbid(monkeypatch, nus / "NUS_WID_Tags")
    with pytest.raises(ValueError, match=r"TagList1k.txt is not below .*cannot be opened: .*NUS_WID_Tags \(Permission"):
        dataset(nus)


def test_shipped_labels_are_the_published_ones_and_keep_their_hierarchy() -> None:
    space = LabelSpace.load(ROOT / "data" / "labels" / "nus_wide.yaml")
    assert (len(space.seen), len(space.unseen)) == (925, 81)
    assert space.parents_of("whales") == ("animal",)
    assert set(space.parents_of("castle")) == {"buildings"}


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("Groundtruth/AllLabels/Labels_cat.txt", lambda text: text[:-4], "ends after 10 of 12 lines"),
        ("Groundtruth/AllLabels/Labels_cat.txt", lambda text: text + "1\n", "line 13: 12 lines are expected"),
        ("Groundtruth/AllLabels/Labels_cat.txt", lambda text: "2" + text[1:], "line 1: .* 1 value of 0 or 1"),
        ("NUS_WID_Tags/AllTags1k.txt", lambda text: text.replace("\t", "", 1)[1:], "line 1: .* 4 values of 0 or 1"),
        ("ImageList/Imagelist.txt", lambda text: text + "\n" + LINES[0], "lists actor.*0000_1000.jpg twice"),
        (
            "ImageList/TrainImagelist.txt",
            lambda text: text + "\nother.jpg",
            "lists other.jpg, which Imagelist",
        ),
        ("ImageList/TrainImagelist.txt", lambda text: text + "\n" + LINES[9], "in both the train and the test part"),
    ],
)
def test_a_damaged_file_is_named(nus: Path, name: str, edit: Any, message: str) -> None:
    path = nus / name
    path.write_bytes(edit(path.read_bytes().decode()).encode())
    with pytest.raises(ValueError, match=message):
        dataset(nus)


def test_missing_or_doubled_files_are_named(nus: Path) -> None:
    (nus / "copy").mkdir()
    (nus / "copy" / "Concepts81.txt").write_text("cat")
    with pytest.raises(ValueError, match=r"Concepts81.txt is 2 times below .*prepare_dataset.root"):
        dataset(nus)
    (nus / "copy" / "Concepts81.txt").unlink()
    (nus / "NUS_WID_Tags" / "AllTags1k.txt").unlink()
    with pytest.raises(ValueError, match=r"AllTags1k.txt is not below .*unpack the official archives"):
        dataset(nus)


def test_labels_that_are_neither_concept_nor_tag_are_refused(nus: Path) -> None:
    labels = [{"name": name, "seen": False} for name in ("cat", "gnu", "sky")]
    space = LabelSpace.model_validate({"name": "small", "labels": labels})
    with pytest.raises(ValueError, match=r"no concept or tag 'gnu' in Concepts81.txt or TagList1k.txt"):
        build(Config(root=nus, images=nus / "Flickr"), space, 0)


def as_files(data: PhotoSet) -> dict[str, list[tuple[str, frozenset[str]]]]:
    return {split: [(photo.image_id, photo.shown) for photo in photos] for split, photos in data.splits.items()}


def test_byte_order_marks_and_empty_last_lines_change_nothing(nus: Path) -> None:
    expected = as_files(dataset(nus))
    for path in nus.rglob("*.txt"):
        path.write_bytes(BOM_UTF8 + path.read_bytes() + b"\n \r\n\n")
    assert as_files(dataset(nus)) == expected


def test_an_empty_line_within_is_named(nus: Path) -> None:
    path = nus / "Groundtruth/AllLabels/Labels_cat.txt"
    path.write_text(path.read_text().replace("\n", "\n\n", 1))
    with pytest.raises(ValueError, match=r"Labels_cat.txt, line 2: 12 lines are expected"):
        dataset(nus)


@pytest.mark.parametrize("with_folders", ["lists", "images", "neither"])
def test_class_folders_may_be_missing(nus: Path, with_folders: str) -> None:
    expected = as_files(dataset(nus))
    if with_folders != "images":
        for path in list((nus / "Flickr").rglob("*.jpg")):
            path.rename(nus / "Flickr" / path.name)
    if with_folders != "lists":
        for path in (nus / "ImageList").glob("*.txt"):
            path.write_text(path.read_text().replace("actor\\", ""))
    data = dataset(nus)
    assert as_files(data) == expected
    assert all(photo.path.exists() for photos in data.splits.values() for photo in photos)


def test_two_files_that_could_be_one_image_are_named(nus: Path) -> None:
    for path in list((nus / "Flickr").rglob("*.jpg")):
        path.rename(nus / "Flickr" / path.name)
    (nus / "Flickr" / "copy").mkdir()
    (nus / "Flickr" / "copy" / "0003_1003.jpg").touch()
    with pytest.raises(ValueError, match=r"0003_1003.jpg could both be the image of that name"):
        dataset(nus)
