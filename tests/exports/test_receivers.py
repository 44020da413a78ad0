"""Every export read back by the program that it is for, as far as that is installed: labels and pictures are the same.

datumaro, fiftyone and label-studio-sdk do not fit next to the project's packages; their tests run where they do exist.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tailorset.exports.parts.source import ExportSource
from tests.export_products import ODD, export, exported, make_products

Found = dict[str, tuple[list[str], Any]]  # image id -> labels, picture (H, W, 3)


@pytest.fixture
def source(tmp_path: Path) -> ExportSource:
    return make_products(tmp_path / "project", 40, num_photos=12, unseen=ODD)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub" / "datasets"))


def check(found: Found, source: ExportSource) -> None:
    """Compare labels and pictures with those of the products."""
    expected = exported(source)
    assert found.keys() == expected.keys()
    for image_id, (labels, picture) in found.items():
        image, content = expected[image_id]
        assert sorted(labels) == sorted(image.labels)
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("name", ["imagefolder", "parquet"])
def test_hugging_face_datasets(name: str, source: ExportSource, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    found: Found = {}
    folder = export(name, source, tmp_path / "out", part_size=9)
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "validation", "test"}
    for rows in loaded.values():
        for row in rows:
            feature = rows.features["labels"].feature
            assert isinstance(feature, datasets.ClassLabel)
            found[row["image_id"]] = feature.int2str(row["labels"]), row["image"]
    check(found, source)


@pytest.mark.parametrize("name", ["imagefolder", "parquet"])
def test_hugging_face_datasets_see_what_was_exported_last(name: str, source: ExportSource, tmp_path: Path) -> None:
    """Not what their cache holds of an earlier export to the same folder."""
    datasets = pytest.importorskip("datasets")
    for number in (40, 25):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        products = make_products(tmp_path / f"project-{number}", number)
        folder = export(name, products, tmp_path / "out", part_size=9)
        loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
        assert sum(map(len, loaded.values())) == len(exported(products))


def test_webdataset(source: ExportSource, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    tars = sorted(map(str, export("webdataset", source, tmp_path / "out", part_size=9).glob("*.tar")))
    samples = webdataset.WebDataset(tars, shardshuffle=False).decode("pil")
    check({sample["__key__"]: (sample["json"]["labels"], sample["png"]) for sample in samples}, source)


def test_cleanlab_finds_a_label_that_was_flipped(source: ExportSource, tmp_path: Path) -> None:
    filters = pytest.importorskip("cleanlab.filter")
    folder = export("cleanlab", make_products(tmp_path / "more", 300), tmp_path / "out")
    labels = json.loads((folder / "labels.json").read_text())
    probabilities = np.load(folder / "pred_probs.npy", allow_pickle=False)
    confident = np.where(np.isin(np.arange(probabilities.shape[1]), labels[0]), 0.99, 0.01)
    probabilities[0], labels[0] = confident, [] if labels[0] else [0]
    issues = filters.find_label_issues(labels, probabilities, multi_label=True, n_jobs=1)
    assert issues.shape == (len(labels),)
    assert issues[0]


def test_fiftyone(source: ExportSource, tmp_path: Path) -> None:
    importers = pytest.importorskip("fiftyone.utils.data.importers")
    folder, found = export("fiftyone", source, tmp_path / "out"), {}
    for split in ("train", "val", "test"):
        with importers.FiftyOneImageClassificationDatasetImporter(dataset_dir=str(folder / split)) as samples:
            assert samples.get_dataset_info()["classes"] == list(source.labels)
            for path, _, labels in samples:
                names = [one.label for one in labels.classifications] if labels else []
                found[Path(path).stem] = names, Image.open(path)
    check(found, source)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("datumaro", "datumaro"), ("coco", "coco_labels"), ("cvat", "cvat"), ("roboflow", "roboflow_multiclass")],
)
def test_datumaro(name: str, kind: str, source: ExportSource, tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro")
    folder, found = export(name, source, tmp_path / "out"), {}
    label = datumaro.AnnotationType.label
    for part in sorted(folder.iterdir()) if name == "cvat" else [folder]:
        if not part.is_dir():
            continue
        items = datumaro.Dataset.import_from(str(part), kind)
        names = [one.name for one in items.categories()[label]]
        for item in items:
            labels = [names[one.label] for one in item.annotations if one.type == label]
            found[Path(item.id).name] = labels, item.media.data[..., ::-1]  # BGR
    check(found, source)


def test_label_studio(source: ExportSource, tmp_path: Path) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    folder = export("label_studio", source, tmp_path / "out")
    config = interface.LabelInterface((folder / "label_config.xml").read_text())
    assert set(config.get_control("labels").labels) == set(source.labels)
    for task in json.loads((folder / "tasks.json").read_text()):
        assert config.validate_task({"data": task["data"]})
        assert all(map(config.validate_prediction, task.get("predictions", [])))
        assert all(map(config.validate_annotation, task.get("annotations", [])))


def test_mlcroissant_validates_and_reads_the_description(source: ExportSource, tmp_path: Path) -> None:
    croissant = pytest.importorskip("mlcroissant")
    path = export("cvat", source, tmp_path / "out") / "croissant.json"
    command = [sys.executable, "-m", "mlcroissant.scripts.cli", "validate", "--jsonld", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    dataset = croissant.Dataset(str(path))
    assert dataset.metadata.conforms_to == ["http://mlcommons.org/croissant/1.1"]
    assert dataset.metadata.data_biases == ["none known"]
    assert [row["labels/name"] for row in dataset.records("labels")] == list(source.labels)
    rows = {row["images/image_id"].decode(): row for row in dataset.records("images")}
    expected = exported(source)
    assert rows.keys() == expected.keys()
    for image_id, row in rows.items():
        assert [label.decode() for label in row["images/labels"]] == expected[image_id][0].labels
        assert row["images/seed"] in (None, (expected[image_id][0].seed or "").encode())
