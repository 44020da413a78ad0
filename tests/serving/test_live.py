"""A new version reaches those who ask when the alias moves: without a failed request, and only if it can be used."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx2
import mlflow
import pytest
import torch

from tailorset.inference.onnx_predictor import NotExportable
from tailorset.inference.predictor import Predictor, load_predictor
from tailorset.project.layout import CLASSIFIER, FITTED_TO
from tailorset.project.tracking import connect
from tailorset.records import LabelSpace
from tailorset.registry.version import log_model
from tailorset.serving.live import LiveModel
from tailorset.serving.service import Service
from tailorset.storage.checksums import bind
from tests.registered import running, scores_of

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def two_versions(
    registry: Path,
    other_folder: Path,
    label_space: LabelSpace,
    tmp_path_factory: pytest.TempPathFactory,
    tracking_database: Path,
) -> Path:
    """A project whose registry holds two versions of `live` that say different things."""
    root = tmp_path_factory.mktemp("live")
    shutil.copytree(registry / "data", root / "data")
    shutil.copytree(registry / "models", root / "models")
    shutil.copy(tracking_database, root)
    before = Path.cwd()
    os.chdir(root)
    try:
        mlflow.set_experiment(experiment_id=connect(root)[1])
        with mlflow.start_run():
            assert log_model("live", label_space.names) == "1"
        shutil.copytree(other_folder, root / "models" / "classifier", dirs_exist_ok=True)
        bind(CLASSIFIER, FITTED_TO)
        with mlflow.start_run():
            assert log_model("live", label_space.names) == "2"
    finally:
        os.chdir(before)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return root


@pytest.fixture
def project_of_two(two_versions: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(two_versions)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    point_to("1")
    yield two_versions
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def point_to(version: str) -> None:
    connect(Path.cwd())[0].set_registered_model_alias("live", "champion", version)


def test_answers_switch_under_load_and_no_request_fails(project_of_two: Path, photos: Path) -> None:
    photo = (photos / "turned.jpg").read_bytes()
    expected = {version: scores_of(load_predictor(f"models:/live/{version}"), [photo])[0] for version in ("1", "2")}
    assert not torch.allclose(expected["1"], expected["2"], atol=1e-3)
    with running(Service("models:/live@champion", poll_s=0.2)) as url, ThreadPoolExecutor(8) as pool:
        stop = time.monotonic() + 60
        switched: list[float] = []

        def ask() -> list[str]:
            versions = []
            with httpx2.Client(base_url=url, timeout=30) as client:
                while time.monotonic() < stop and not (switched and time.monotonic() > switched[0] + 0.5):
                    answer = client.post("/predict", content=photo, headers=PNG)
                    assert answer.status_code == 200, answer.text
                    said = torch.tensor([label["score"] for label in answer.json()["labels"]])
                    versions.append(answer.json()["version"])
                    torch.testing.assert_close(said, expected[versions[-1]], atol=1e-5, rtol=0)
                    if versions[-1] == "2" and not switched:
                        switched.append(time.monotonic())
            return versions

        asking = [pool.submit(ask) for _ in range(4)]
        time.sleep(0.5)
        point_to("2")
        for future in asking:
            versions = future.result()
            assert versions == sorted(versions)  # never back
            assert set(versions) == {"1", "2"}


def test_a_version_that_cannot_be_used_does_not_take_over(
    project_of_two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveModel("models:/live@champion")
    assert live.follows_alias
    assert live.refresh() is False

    def broken(_: str) -> None:
        raise ValueError("not hold a usable classifier")

    point_to("2")
    with monkeypatch.context() as patch:
        patch.setattr("tailorset.serving.live.load_predictor", broken)
        with pytest.raises(ValueError, match="not hold a usable classifier"):
            live.refresh()
    assert live.predictor.origin.version == "1"
    assert live.refresh() is True
    assert live.predictor.origin.version == "2"


def test_a_version_of_other_labels_does_not_take_over(project_of_two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveModel("models:/live@champion")
    others = replace_labels(load_predictor("models:/live/2"), ("tea cup", "fish"))
    point_to("2")
    loaded: list[str] = []
    monkeypatch.setattr("tailorset.serving.live.load_predictor", lambda uri: loaded.append(uri) or others)
    with pytest.raises(ValueError, match=r"version 2 has other labels.*start the server again"):
        live.refresh()
    assert live.refresh() is False
    assert len(loaded) == 1  # not again every few seconds
    assert live.predictor.labels == ("tea cup", "ball")
    monkeypatch.setattr("tailorset.serving.service.LiveModel", lambda uri, *_: replace_live(live, others, uri))
    with pytest.raises(ValueError, match="only models of the same labels can be compared"):
        Service("models:/live/1", challenger="models:/live/2")


def test_onnx_answers_as_torch_does_before_and_after_the_alias_moves(project_of_two: Path, photos: Path) -> None:
    files = [path.read_bytes() for path in sorted(photos.iterdir())]
    live = LiveModel("models:/live@champion", backend="onnx")
    assert live.describe().endswith("labels, by ONNX Runtime")
    for version in ("1", "2"):
        point_to(version)
        assert live.refresh() is (version == "2")
        expected = scores_of(load_predictor(f"models:/live/{version}"), files)
        torch.testing.assert_close(scores_of(live.predictor, files), expected, atol=1e-4, rtol=0)


def test_a_version_that_cannot_be_exported_does_not_take_over_and_is_not_tried_again(
    project_of_two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def open_first_only(uri: str) -> Predictor:
        opened.append(uri)
        if len(opened) > 1:
            raise NotExportable("cannot be served by ONNX Runtime")
        return load_predictor(uri)

    monkeypatch.setattr("tailorset.serving.live.load_onnx_predictor", open_first_only)
    live = LiveModel("models:/live@champion", backend="onnx")
    point_to("2")
    with pytest.raises(NotExportable):
        live.refresh()
    assert live.refresh() is False
    assert len(opened) == 2
    assert live.predictor.origin.version == "1"


def replace_labels(predictor: Predictor, labels: tuple[str, ...]) -> Predictor:
    predictor.labels = labels
    return predictor


def replace_live(live: LiveModel, others: Predictor, uri: str) -> SimpleNamespace:
    return SimpleNamespace(predictor=others if uri.endswith("2") else live.predictor)


def test_a_registry_out_of_reach_does_not_end_the_service(
    project_of_two: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    live, stop, asked = LiveModel("models:/live@champion"), threading.Event(), []

    def away() -> bool:
        asked.append(1)
        if len(asked) == 3:
            stop.set()
        raise ConnectionError("registry away")

    monkeypatch.setattr(live, "refresh", away)
    live.follow(0.01, stop)
    assert [record.message for record in caplog.records] == ["models:/live@champion: version 1 stays: registry away"]


def test_a_folder_and_a_fixed_version_are_not_followed(folder: Path, project_of_two: Path) -> None:
    assert not LiveModel(str(folder)).follows_alias
    assert not LiveModel("models:/live/2").follows_alias
