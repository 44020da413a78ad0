"""One way from photos to scores: the same as the registered model's and as the evaluation's."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tailorset.classifiers import load_classifier
from tailorset.commands.status import registry_line
from tailorset.datasets.reading.photo_set import Photo, PhotoSet
from tailorset.images.codec import square_pixels
from tailorset.inference.onnx import metadata
from tailorset.inference.predictor import Predictor, load_predictor
from tailorset.records import LabelSpace, RealSample
from tailorset.storage.image_set import load_image_set
from tailorset.storage.shards import sha256, write_shard
from tailorset.thresholds.rules import Thresholds, one_threshold
from tailorset.training.loop import predict
from tests.registered import scores_of


@pytest.fixture
def predictor(registry: Path) -> Predictor:
    return load_predictor(registry / "models" / "classifier", "cpu")


@pytest.fixture
def contents(photos: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(photos.iterdir())]


def test_it_answers_as_the_registered_model_does(registry: Path, contents: list[bytes], predictor: Predictor) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{registry / 'mlflow.db'}")
    served = mlflow.pyfunc.load_model("models:/tiny/1").predict(pd.DataFrame({"image": contents}))
    scores = served[[f"score/{label}" for label in predictor.labels]].to_numpy()
    np.testing.assert_allclose(scores_of(predictor, contents).numpy(), scores, atol=1e-5)
    answers = pd.DataFrame(predictor.answers(predictor.look(torch.stack([predictor.pixels(one) for one in contents]))))
    pd.testing.assert_frame_equal(served, answers, atol=1e-5)


def test_it_answers_as_the_evaluation_does(registry: Path, photos: Path, tmp_path: Path, predictor: Predictor) -> None:
    content = (photos / "turned.jpg").read_bytes()
    write_shard(tmp_path / "shards" / "test.tar", [("a", content)])
    rows = pd.DataFrame({"image_id": ["a"], "shard": ["test.tar"], "sha256": [sha256(content)]})
    images = load_image_set(rows, torch.zeros(1, 2), tmp_path, predictor.classifier.image_px).images
    evaluated = predict(load_classifier(registry / "models" / "classifier"), images)
    torch.testing.assert_close(scores_of(predictor, [content]), evaluated, atol=1e-6, rtol=0)


@pytest.mark.parametrize("image_px", [20, 50])  # below and above the size that the classifier reads
def test_a_large_photo_is_scored_as_the_data_set_stores_it(
    image_px: int, registry: Path, photos: Path, thresholds: Thresholds, tmp_path: Path
) -> None:
    shutil.copytree(registry / "models", tmp_path / "models")
    replace(thresholds, photo_px=image_px).save(tmp_path / "models" / "thresholds.json")
    predictor = load_predictor(tmp_path / "models" / "classifier", "cpu")
    assert f"shorter side at most {image_px};" in metadata(predictor)["preprocessing"]
    files = [Photo(path.stem, path, frozenset(), ()) for path in sorted(photos.iterdir())]
    stored = list(PhotoSet({"test": files}, image_px, []).samples("test"))
    assert all(isinstance(sample, RealSample) for sample in stored)
    for photo, sample in zip(files, stored, strict=True):
        assert torch.equal(predictor.pixels(photo.path.read_bytes()), predictor.pixels(sample.png)), photo.image_id
        with Image.open(io.BytesIO(sample.png)) as image:
            as_evaluated = square_pixels(image, predictor.classifier.image_px)
        assert torch.equal(predictor.pixels(photo.path.read_bytes()), as_evaluated), photo.image_id


def test_a_batch_does_not_change_an_answer(contents: list[bytes], predictor: Predictor) -> None:
    alone = torch.cat([scores_of(predictor, [content]) for content in contents])
    torch.testing.assert_close(scores_of(predictor, contents), alone, atol=1e-5, rtol=0)
    pixels = torch.stack([predictor.pixels(content) for content in contents])
    torch.testing.assert_close(predictor.scores(pixels, batch_size=2), alone, atol=1e-5, rtol=0)
    assert len(alone.unique(dim=0)) == len(contents)  # other photos, other scores


def test_bytes_and_decoded_images_are_alike(predictor: Predictor, photos: Path) -> None:
    path = photos / "grey.png"
    with Image.open(path) as image:
        assert torch.equal(predictor.pixels(path.read_bytes()), predictor.pixels(image))


def test_a_version_without_a_limit_of_novelty_answers_all_the_same(
    registry: Path, contents: list[bytes], predictor: Predictor, tmp_path: Path
) -> None:
    """As versions are that were registered before there was one."""
    shutil.copytree(registry / "models", tmp_path / "models")
    (tmp_path / "models" / "novelty.safetensors").unlink()
    older = load_predictor(tmp_path / "models" / "classifier", "cpu")
    looked = older.look(torch.stack([older.pixels(content) for content in contents]))
    assert looked.novelty is None
    torch.testing.assert_close(looked.scores, scores_of(predictor, contents))
    assert older.answers(looked)["novelty"] == [None] * len(contents)


def test_the_registry_gives_the_same_with_its_origin(
    registry: Path, contents: list[bytes], predictor: Predictor, thresholds: Thresholds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(registry)
    client = mlflow.MlflowClient(f"sqlite:///{registry / 'mlflow.db'}")
    client.set_registered_model_alias("tiny", "tried", "1")
    client.set_model_version_tag("tiny", "1", "git.commit", "abc123")
    registered = load_predictor("models:/tiny@tried", "cpu")
    assert torch.equal(scores_of(registered, contents), scores_of(predictor, contents))
    assert registered.thresholds == predictor.thresholds == thresholds
    assert (registered.labels, registered.seen, registered.unseen) == (("tea cup", "ball"), ("ball",), ("tea cup",))
    assert (registered.origin.version, registered.origin.commit) == ("1", "abc123")
    assert registered.origin.run_id == client.get_model_version("tiny", "1").run_id
    assert predictor.origin.version is None


def test_the_status_names_the_experiment_of_a_version(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(registry)
    client = mlflow.MlflowClient(f"sqlite:///{registry / 'mlflow.db'}")
    client.set_registered_model_alias("tiny", "challenger", "1")
    client.set_model_version_tag("tiny", "1", "git.commit", "abc123")
    client.set_model_version_tag("tiny", "1", "dvc.experiment", "no-fusion")
    line = "models:/tiny@challenger is version 1, made from commit abc123 by the experiment no-fusion"
    assert line in registry_line("tiny")


def test_decisions_are_those_of_the_thresholds(contents: list[bytes], predictor: Predictor) -> None:
    decisions = predictor.decide(scores_of(predictor, contents))
    assert decisions is not None
    scale, bias = torch.tensor([1.5, 2.0]).double(), torch.tensor([-0.5, 0.1]).double()
    expected = (scale * scores_of(predictor, contents).double().logit() + bias).sigmoid()
    torch.testing.assert_close(decisions.probabilities, expected)
    assert torch.equal(decisions.present, expected >= torch.tensor([0.4, 0.5]))


def test_thresholds_are_optional_and_never_those_of_other_labels(
    registry: Path, label_space: LabelSpace, tmp_path: Path
) -> None:
    shutil.copytree(registry / "models" / "classifier", tmp_path / "classifier")
    bare = load_predictor(tmp_path / "classifier", "cpu")
    assert bare.thresholds is None
    assert bare.decide(torch.tensor([[0.49, 0.51]])).present.tolist() == [[False, True]]
    one_threshold(label_space.names[::-1]).save(tmp_path / "thresholds.json")
    with pytest.raises(ValueError, match=r"thresholds are for .* run `dvc repro fit_thresholds`"):
        load_predictor(tmp_path / "classifier", "cpu")


def test_what_is_not_there_is_named_with_its_remedy(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"There is no folder .*nowhere: name one of a trained classifier"):
        load_predictor(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # mlflow.set_tracking_uri writes it
    with pytest.raises(ValueError, match=r"There is no model registry in .* run `make run`"):
        load_predictor("models:/tiny@champion")
    assert not (tmp_path / "mlflow.db").exists()
    monkeypatch.chdir(registry)
    for uri in ("models:/tiny", "models:/tiny/latest", "models:/tiny@champion/artifacts", "models:/a/../b"):
        with pytest.raises(ValueError, match=r"is not the name of a registered version: write models:/NAME@ALIAS"):
            load_predictor(uri)
    for uri in ("models:/tiny@nobody", "models:/tiny/99", "models:/other@champion"):
        with pytest.raises(ValueError, match=f"{uri} is not in the registry .* `tailorset promote`"):
            load_predictor(uri)


@pytest.mark.gpu
def test_a_gpu_may_compute_in_bfloat16(registry: Path, contents: list[bytes], predictor: Predictor) -> None:
    half = load_predictor(registry / "models" / "classifier", "cuda", bf16=True)
    torch.testing.assert_close(scores_of(half, contents), scores_of(predictor, contents), atol=2e-2, rtol=0)


def test_thresholds_of_another_classifier_are_refused(registry: Path, other_folder: Path, tmp_path: Path) -> None:
    """Another backbone, or the same one trained again: the labels alone would fit."""
    models = Path(shutil.copytree(registry / "models", tmp_path / "models"))
    load_predictor(models / "classifier", "cpu")
    shutil.rmtree(models / "classifier")
    shutil.copytree(other_folder, models / "classifier")
    with pytest.raises(ValueError, match=r"fitted to another classifier.*dvc repro fit_thresholds"):
        load_predictor(models / "classifier", "cpu")
    (models / "fitted_to.sha256").unlink()  # an older version
    load_predictor(models / "classifier", "cpu")
