"""Every format read back by its documented schema: the same images, labels and pictures, whatever labels are called."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest

from tailorset.exports import ExportedImage
from tailorset.exports.parts.run import IMAGES
from tailorset.exports.parts.source import ExportSource
from tailorset.plugins import EXPORTS, plugin_names
from tests.export_products import MENTION, ODD, UNSEEN, digests, export, exported, make_products

Read = Iterator[tuple[str, list[str], bytes]]  # image id, labels, PNG bytes
FORMATS = plugin_names(EXPORTS)


def read_fiftyone(folder: Path) -> Read:
    for path in folder.glob("*/labels.json"):
        content = json.loads(path.read_text())
        for key, labels in content["labels"].items():
            assert {label["label"] for label in labels} <= set(content["classes"])
            yield key, [label["label"] for label in labels], (path.parent / "data" / f"{key}.png").read_bytes()


def read_imagefolder(folder: Path) -> Read:
    for path in folder.glob("*/metadata.parquet"):
        for row, labels in hub_rows(path):
            yield row["image_id"], labels, (path.parent / row["file_name"]).read_bytes()


def read_parquet(folder: Path) -> Read:
    for path in sorted((folder / "data").glob("*.parquet")):
        for row, labels in hub_rows(path):
            yield row["image_id"], labels, row["image"]["bytes"]


def hub_rows(path: Path) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield the rows of a table with their labels, by the features in its metadata."""
    table = pq.read_table(path)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features.keys() == set(table.column_names)
    names = features["labels"]["feature"]["names"]
    for row in table.to_pylist():
        yield row, [names[at] for at in row["labels"]]


def read_webdataset(folder: Path) -> Read:
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for key in {name.rpartition(".")[0] for name in files}:
            yield key, json.loads(files[f"{key}.json"])["labels"], files[f"{key}.png"]


def read_label_studio(folder: Path) -> Read:
    choices = [one.get("value") for one in ElementTree.parse(folder / "label_config.xml").iter("Choice")]
    for task in json.loads((folder / "tasks.json").read_text()):
        results = (task.get("annotations") or task["predictions"])[0]["result"]
        labels = [label for result in results for label in result["value"]["choices"]]
        assert set(labels) <= set(choices)
        path = folder / task["data"]["image"].removeprefix("/data/local-files/?d=")
        yield path.stem, labels, path.read_bytes()


def read_cvat(folder: Path) -> Read:
    for path in folder.glob("*/annotations.xml"):
        root = ElementTree.parse(path).getroot()
        names = {name.text for name in root.iterfind("meta/task/labels/label/name")}
        for image in root.iterfind("image"):
            labels = [tag.get("label", "") for tag in image.iterfind("tag")]
            assert set(labels) <= names
            file = path.parent / "images" / image.get("name", "")
            yield file.stem, labels, file.read_bytes()


def read_datumaro(folder: Path) -> Read:
    for path in (folder / "annotations").glob("*.json"):
        content = json.loads(path.read_text())
        names = [label["name"] for label in content["categories"]["label"]["labels"]]
        for item in content["items"]:
            file = folder / "images" / path.stem / item["image"]["path"]
            yield item["id"], [names[one["label_id"]] for one in item["annotations"]], file.read_bytes()


def read_coco(folder: Path) -> Read:
    for path in (folder / "annotations").glob("labels_*.json"):
        content = json.loads(path.read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        assert len({one["id"] for one in content["annotations"]}) == len(content["annotations"])
        for image in content["images"]:
            labels = [names[one["category_id"]] for one in content["annotations"] if one["image_id"] == image["id"]]
            file = folder / "images" / path.stem.removeprefix("labels_") / image["file_name"]
            yield file.stem, labels, file.read_bytes()


def read_roboflow(folder: Path) -> Read:
    for path in folder.glob("*/_classes.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                name = row.pop("filename")
                labels = [label for label, value in row.items() if value == "1"]
                yield name.removesuffix(".png"), labels, (path.parent / name).read_bytes()


def read_cleanlab(folder: Path) -> Read:
    names, files, labels = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("classes", "images", "labels")
    )
    assert np.load(folder / "pred_probs.npy", allow_pickle=False).shape == (len(files), len(names))
    for file, numbers in zip(files, labels, strict=True):
        yield Path(file).stem, [names[at] for at in numbers], (folder / file).read_bytes()


def is_sure(image: ExportedImage) -> bool:
    """Check that an image is annotated for all labels that it has scores for."""
    return {*image.labels, *image.absent} >= image.scores.keys()


READERS: dict[str, Callable[[Path], Read]] = {
    name.removeprefix("read_"): function for name, function in globals().items() if name.startswith("read_")
}


@pytest.fixture
def source(tmp_path: Path) -> ExportSource:
    return make_products(tmp_path / "project", num_photos=30)


def test_every_format_has_a_reader_here() -> None:
    assert set(READERS) == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_labels_and_pictures_are_the_same_after_reading_back(name: str, source: ExportSource, tmp_path: Path) -> None:
    folder = export(name, source, tmp_path / "out", part_size=17)
    expected = exported(source)
    if name == "cleanlab":
        expected = {image_id: one for image_id, one in expected.items() if one[0].scores}
    found = {image_id: (labels, content) for image_id, labels, content in READERS[name](folder)}
    shown = {image_id: image.labels for image_id, (image, _) in expected.items()}
    if name == "cleanlab":  # generated images are annotated for unseen labels only
        shown = {image_id: [label for label in labels if label in UNSEEN] for image_id, labels in shown.items()}
    assert {image_id: labels for image_id, (labels, _) in found.items()} == shown
    assert {image_id: content for image_id, (_, content) in found.items()} == {
        image_id: content for image_id, (_, content) in expected.items()
    }
    assert not list(folder.rglob("*partial*"))
    assert sum(1 for _ in (folder / IMAGES).open()) == len(exported(source))


@pytest.mark.parametrize("name", FORMATS)
def test_odd_labels_survive(name: str, tmp_path: Path) -> None:
    source = make_products(tmp_path / "project", 50, num_photos=9, unseen=ODD)
    folder = export(name, source, tmp_path / "out")
    found = {image_id: labels for image_id, labels, _ in READERS[name](folder)}
    assert {label for labels in found.values() for label in labels} >= set(ODD)
    for image_id, (image, _) in exported(source).items():
        if image_id in found:
            assert found[image_id] == [label for label in image.labels if name != "cleanlab" or label in ODD]


@pytest.mark.parametrize("name", FORMATS)
def test_two_exports_have_equal_bytes(name: str, source: ExportSource, tmp_path: Path) -> None:
    first, second = (export(name, source, tmp_path / one) for one in ("first", "second"))
    assert digests(first) == digests(second)


def test_predictions_are_sorted_least_certain_first(source: ExportSource, tmp_path: Path) -> None:
    tasks = json.loads((export("label_studio", source, tmp_path / "out") / "tasks.json").read_text())
    scores = [task["predictions"][0]["score"] for task in tasks if "predictions" in task]
    assert scores == sorted(scores)
    assert all("predictions" not in task for task in tasks[len(scores) :])
    assert len(scores) == sum(bool(image.scores) for image, _ in exported(source).values())


def test_the_arrays_hold_the_scores_of_their_images(source: ExportSource, tmp_path: Path) -> None:
    folder = export("cleanlab", source, tmp_path / "out")
    names, files = (json.loads((folder / f"{name}.json").read_text()) for name in ("classes", "images"))
    assert names == list(UNSEEN)  # all that are annotated and scored in every image
    images = exported(source)
    expected = [[images[Path(file).stem][0].scores[label] for label in names] for file in files]
    np.testing.assert_allclose(np.load(folder / "pred_probs.npy"), expected, rtol=1e-6)


def test_labels_that_are_not_annotated_are_not_absent(source: ExportSource, tmp_path: Path) -> None:
    content = json.loads((export("coco", source, tmp_path / "out") / "annotations" / "labels_train.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    for image in content["images"]:
        absent = {names[at] for at in image["neg_category_ids"]}
        generated = "-" in image["file_name"] and not image["file_name"].startswith("train")
        assert absent <= (set(UNSEEN) if generated else set(source.labels) - set(UNSEEN))


def test_a_label_that_a_prompt_names_beside_its_own_is_not_absent(source: ExportSource) -> None:
    images = [image for image, _ in exported(source).values() if image.source == "synthetic"]
    unsure = [image for image in images if not is_sure(image)]
    assert unsure
    assert {image.prompt for image in unsure} == {image.prompt for image in images if MENTION in str(image.prompt)}
    for image in images:
        unknown = set(UNSEEN) - set(image.labels) - set(image.absent)
        assert unknown == ({UNSEEN[0]} if image in unsure else set())


def test_a_photo_without_annotations_is_not_labelled_in_fiftyone(source: ExportSource, tmp_path: Path) -> None:
    assert source.real
    table = pq.read_table(source.real / "targets.parquet").to_pandas()
    table.iloc[0, 1:] = -1
    table.to_parquet(source.real / "targets.parquet", index=False)
    folder = export("fiftyone", source, tmp_path / "out")
    found = {}
    for path in folder.glob("*/labels.json"):
        found |= json.loads(path.read_text())["labels"]
    assert [name for name, labels in found.items() if labels is None] == [table["image_id"][0]]


def test_a_csv_row_has_as_many_cells_as_labels(source: ExportSource, tmp_path: Path) -> None:
    text = (export("roboflow", source, tmp_path / "out") / "train" / "_classes.csv").read_text()
    assert {len(row) for row in csv.reader(io.StringIO(text))} == {1 + len(source.labels)}
