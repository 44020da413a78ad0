"""MS-COCO on miniature trees in the official format, each kind of damage, and real photos where there are some."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tailorset.datasets.coco import Config, build
from tailorset.datasets.reading.coco_instances import read_instances
from tailorset.datasets.reading.photo_set import PhotoSet
from tailorset.images.codec import decode_image
from tailorset.records import LabelSpace, RealSample, Rejected

ROOT = Path(__file__).resolve().parents[2]
TINY_COCO = ROOT.parent / "shared" / "data" / "tiny_coco"
CATEGORIES = {1: "person", 17: "cat", 18: "dog", 62: "chair", 84: "book"}
SPACE = LabelSpace.model_validate(
    {
        "name": "small",
        "labels": [{"name": name, "seen": name in ("person", "chair")} for name in ("person", "chair", "cat", "dog")],
    }
)
# image id -> categories that it shows
TRAIN = dict(enumerate([[1], [1, 62], [62], [1, 17], [17], [84], [], [1], [62], [1, 1]], 1))
VAL = {101: [1], 102: [1, 18], 103: [17], 104: [84], 105: [62]}
Content = dict[str, Any]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for part, shown in (("train2014", TRAIN), ("val2014", VAL)):
        write_part(tmp_path, part, shown)
    return tmp_path


def write_part(root: Path, part: str, shown: dict[int, list[int]]) -> None:
    names = {number: f"COCO_{part}_{number:012d}.jpg" for number in shown}
    (root / part).mkdir()
    for number, name in names.items():
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / part / name)
    content = {
        "images": [{"id": number, "file_name": name, "height": 48, "width": 64} for number, name in names.items()],
        "annotations": [
            {"id": 100 * number + place, "image_id": number, "category_id": category, "iscrowd": place % 2}
            for number, categories in shown.items()
            for place, category in enumerate(categories)
        ],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
    }
    (root / "annotations").mkdir(exist_ok=True)
    annotation_file(root, part).write_text(json.dumps(content))


def annotation_file(root: Path, part: str = "train2014") -> Path:
    return root / "annotations" / f"instances_{part}.json"


def change(root: Path, edit: Callable[[Content], object]) -> None:
    content = json.loads(annotation_file(root).read_text())
    edit(content)
    annotation_file(root).write_text(json.dumps(content))


def dataset(root: Path, space: LabelSpace = SPACE, **settings: Any) -> PhotoSet:
    return build(Config(root=root, image_px=32, **{"num_val": 2} | settings), space, 0)


def shown_in(data: PhotoSet, split: Any) -> dict[str, set[str]]:
    return {
        sample.image_id: {name for name, present in sample.targets.items() if present}
        for sample in data.samples(split)
        if isinstance(sample, RealSample)
    }


def test_train_shows_seen_labels_and_no_unseen_one_and_test_shows_an_unseen_one(coco: Path) -> None:
    data = dataset(coco)
    train, val, test = (shown_in(data, split) for split in ("train", "val", "test"))
    assert set(train) | set(val) <= {f"coco-{number:012d}" for number in TRAIN}
    assert not set(train) & set(val)
    assert len(val) == 2
    assert len(set(train) | set(val)) in (6, 7, 8)  # six show seen labels only, two of the val images may show a cat
    assert all(shown and shown <= {"person", "chair"} for shown in train.values())
    assert test == {"coco-000000000102": {"person", "dog"}, "coco-000000000103": {"cat"}}
    assert all(set(sample.targets) == set(SPACE.seen) for sample in data.samples("train"))
    assert all(set(sample.targets) == set(SPACE.names) for sample in data.samples("val"))


def test_other_populations_are_a_setting(coco: Path) -> None:
    data = dataset(coco, train_images="any_seen", test_images="all")
    shows_seen = {number for number, shown in TRAIN.items() if {1, 62} & set(shown)}
    trained = {int(key.removeprefix("coco-")) for key in shown_in(data, "train")}
    assert trained == shows_seen - {int(key.removeprefix("coco-")) for key in shown_in(data, "val")}
    assert all(set(sample.targets) == set(SPACE.seen) for sample in data.samples("train"))
    assert set(shown_in(data, "test")) == {f"coco-{number:012d}" for number in (101, 102, 103, 105)}


def test_counts_are_told(coco: Path) -> None:
    notes = "\n".join(dataset(coco).notes)
    assert "train2014: 10 images, NOT the 82,783 of the official file" in notes
    assert "7 of 10 images show a seen label, 6 of them no unseen one" in notes
    assert "2 of 5 images show an unseen label, 4 any label" in notes
    assert "published" not in notes  # other labels than the protocol's


def test_published_counts_stand_beside_those_of_the_published_labels(coco: Path) -> None:
    space = LabelSpace.load(ROOT / "data" / "labels" / "coco.yaml")
    for part in ("train2014", "val2014"):
        content = json.loads(annotation_file(coco, part).read_text())
        known = {entry["name"] for entry in content["categories"]}
        others = [{"id": 200 + place, "name": name} for place, name in enumerate(space.names) if name not in known]
        content["categories"] += others
        annotation_file(coco, part).write_text(json.dumps(content))
    notes = "\n".join(build(Config(root=coco, num_val=2), space, 0).notes)
    assert "(published: 73,774)" in notes
    assert "6,608" in notes


def test_a_val_split_does_not_depend_on_what_else_is_there(coco: Path) -> None:
    before = set(shown_in(dataset(coco), "val"))
    (coco / "train2014" / "COCO_train2014_000000000006.jpg").unlink()  # shows a book only
    assert set(shown_in(dataset(coco, missing="skip"), "val")) == before


def test_images_are_stored_small_in_their_proportions(coco: Path) -> None:
    sample = next(iter(dataset(coco).samples("test")))
    assert isinstance(sample, RealSample)
    assert decode_image(sample.png).size == (43, 32)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content["images"].append(content["images"][0]), "images lists the ids 1 twice"),
        (lambda content: content["images"].pop(), "annotation 1000 is of image 10 .* not both listed"),
        (lambda content: content["annotations"][0].update(category_id=5), "category 5, which are not both listed"),
        (
            lambda content: content["annotations"][0].pop("category_id"),
            r"annotations.0.category_id: Field required",
        ),
        (lambda content: content["images"][0].update(id="one"), r"images.0.id: Input should be a valid integer"),
        (lambda content: content.pop("annotations"), "no `instances` file of COCO"),
        (lambda content: content["images"][0].update(file_name="../val2014/x.jpg"), "leads out of train2014/"),
        (lambda content: content["categories"].pop(1), "not both listed"),
        (lambda content: content["images"][0].update(neg_category_ids=[]), "image 1 is not annotated for .*neg_cat"),
    ],
)
def test_a_contradictory_annotation_file_is_named(coco: Path, edit: Callable[[Content], object], message: str) -> None:
    change(coco, edit)
    with pytest.raises(ValueError, match=message) as failure:
        dataset(coco)
    assert "instances_train2014.json" in str(failure.value)


def test_a_truncated_annotation_file_is_named(coco: Path) -> None:
    path = annotation_file(coco)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"instances_train2014.json is cut off"):
        dataset(coco)


def test_missing_files_are_named_with_the_setting_to_correct(coco: Path) -> None:
    with pytest.raises(ValueError, match=r"instances_train2017.json cannot be read .*prepare_dataset"):
        dataset(coco, year=2017)
    shutil.rmtree(coco / "val2014")
    with pytest.raises(ValueError, match=r"5 of 15 images of COCO are missing, .*val2014.*unpack"):
        dataset(coco)


def test_an_image_in_both_annotation_files_is_refused(coco: Path) -> None:
    shutil.copy(annotation_file(coco), annotation_file(coco, "val2014"))
    shutil.rmtree(coco / "val2014")
    shutil.copytree(coco / "train2014", coco / "val2014")
    with pytest.raises(ValueError, match="in both the train and the test part"):
        dataset(coco)


def test_missing_images_stop_or_are_counted(coco: Path) -> None:
    (coco / "train2014" / "COCO_train2014_000000000001.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 15 images .*000000000001.jpg.*prepare_dataset.missing to skip"):
        dataset(coco)
    data = dataset(coco, missing="skip")
    assert "1 of 15 images of COCO are missing" in "\n".join(data.notes)
    assert "coco-000000000001" not in shown_in(data, "train") | shown_in(data, "val")


def test_an_image_that_cannot_be_decoded_is_rejected_with_its_reason(coco: Path) -> None:
    path = coco / "val2014" / "COCO_val2014_000000000103.jpg"
    path.write_bytes(path.read_bytes()[:300])
    data = dataset(coco)
    good, bad = data.samples("test")
    assert isinstance(good, RealSample)
    assert isinstance(bad, Rejected)
    assert (bad.image_id, str(path) in bad.reason) == ("coco-000000000103", True)
    assert len(data.sheets(5)["photos"]) == 1


def test_labels_that_coco_does_not_know_are_refused(coco: Path) -> None:
    space = SPACE.model_copy(update={"labels": (*SPACE.labels[:3], SPACE.labels[3].model_copy(update={"name": "gnu"}))})
    with pytest.raises(ValueError, match=r"no category 'gnu' in .*instances_train2014.json.*of 5 there are book, cat"):
        build(Config(root=coco), LabelSpace.model_validate(space.model_dump()), 0)


def rename_categories(coco: Path, **names: str) -> None:
    for part in ("train2014", "val2014"):
        content = json.loads(annotation_file(coco, part).read_text())
        for category in content["categories"]:
            category["name"] = names.get(category["name"], category["name"])
        annotation_file(coco, part).write_text(json.dumps(content))


def test_a_category_that_is_written_in_another_way_is_named(coco: Path) -> None:
    rename_categories(coco, cat="Cat", dog="dog-")
    with pytest.raises(ValueError, match=r"no category 'cat' \(there is 'Cat'\), 'dog' \(there is 'dog-'\) in .*alias"):
        dataset(coco)


def test_a_category_is_found_by_an_alias_and_without_its_blanks(coco: Path) -> None:
    expected = dataset(coco)
    rename_categories(coco, cat="Felis catus", dog="dog ", chair="Chair")
    aliases = {"cat": ["cat", "Felis catus"], "chair": ["chair", "Chair"]}
    labels = [label.model_dump() | {"aliases": aliases.get(label.name, [])} for label in SPACE.labels]
    found = dataset(coco, space=LabelSpace.model_validate({"name": "small", "labels": labels}))
    assert found.splits == expected.splits


def test_a_split_without_images_is_refused(coco: Path) -> None:
    with pytest.raises(ValueError, match=r"no image is left for train: .*num_val takes 4000"):
        dataset(coco, num_val=4000)


@pytest.mark.skipif(not TINY_COCO.is_dir(), reason="no real photos at hand")
def test_real_photos_are_counted_as_in_their_annotation_files() -> None:
    space = LabelSpace.load(ROOT / "data" / "labels" / "coco.yaml")
    data = build(Config(root=TINY_COCO, year=2017, num_val=5, test_images="all", image_px=64), space, 0)
    content = json.loads(annotation_file(TINY_COCO, "val2017").read_text())
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    pairs = {(entry["image_id"], names[entry["category_id"]]) for entry in content["annotations"]}
    expected = {(f"coco-{number:012d}", name) for number, name in pairs if name in space.names}
    assert {(key, name) for key, shown in shown_in(data, "test").items() for name in shown} == expected
    train = read_instances(annotation_file(TINY_COCO, "train2017")).images
    unseen, seen = set(space.unseen), set(space.seen)
    only_seen = {f"coco-{key:012d}" for key, image in train.items() if image.shown & seen and not image.shown & unseen}
    assert set(shown_in(data, "train")) == only_seen - set(shown_in(data, "val"))
    assert len(list(data.samples("train"))) == data.sizes["train"]
