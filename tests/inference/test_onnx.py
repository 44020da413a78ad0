"""The classifier as one ONNX file: the same answers, and all a reader needs to use it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf.message import EncodeError
from tiny_backbone import TIMM, write_timm_backbone
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from tailorset import cli
from tailorset.inference.onnx import BATCHES, export_onnx, largest_difference
from tailorset.inference.predictor import load_predictor
from tailorset.plugins import load_plugin
from tailorset.records import LabelSpace
from tailorset.thresholds.rules import Thresholds


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["export", *map(str, arguments)], terminal_width=200)
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def exported(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that the command writes for the registered version."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(registry)
        code, output = run("--model", "models:/tiny/1", "--output", folder)
    assert code == 0, output
    assert "differs from torch by" in output
    return folder


def test_the_file_answers_as_the_classifier_does_for_any_batch(registry: Path, photos: Path, exported: Path) -> None:
    predictor = load_predictor(registry / "models" / "classifier", "cpu")
    pixels = torch.stack([predictor.pixels(path.read_bytes()) for path in sorted(photos.iterdir())])
    session = onnxruntime.InferenceSession(exported / "classifier.onnx", providers=["CPUExecutionProvider"])
    for batch in (pixels, pixels[:1]):
        scores, features = session.run(["scores", "features"], {"images": (batch.float() / 255).numpy()})
        expected = predictor.classifier.look(batch.float() / 255)
        np.testing.assert_allclose(scores, expected[0].detach().numpy(), atol=1e-4)
        np.testing.assert_allclose(features, expected[1].detach().numpy(), atol=1e-4)


def test_a_classifier_too_large_for_one_file_is_refused_with_the_other_way(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object) -> None:
        raise EncodeError("Failed to serialize proto")  # as protobuf does beyond 2 GiB

    monkeypatch.setattr(onnx, "save", save)
    code, output = run("--model", registry / "models" / "classifier", "--output", tmp_path)
    assert code == 1
    assert "larger than the 2 GiB" in output
    assert "serve --backend torch" in output
    assert not list(tmp_path.iterdir())


def test_a_model_is_exported_into_its_own_folder(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailorset.inference.onnx.export_onnx", lambda predictor, path: 0.0)
    models = Path(shutil.copytree(registry / "models", tmp_path / "models"))
    code, output = run("--model", models / "classifier", "--output", models)
    assert code == 0, output
    assert (models / "MODEL_CARD.md").read_text() == (registry / "models" / "MODEL_CARD.md").read_text()


def test_raw_clip_kept_by_training_is_exported_and_mapped_like_any_classifier(
    registry: Path, label_space: LabelSpace, thresholds: Thresholds, tmp_path: Path
) -> None:
    plugin = load_plugin("classifiers", "dual_prompt")
    config = plugin.Config(backbone={"model": f"local-dir:{registry / 'backbone'}"}, num_context_tokens=2)
    plugin.build(config, label_space, torch.device("cpu")).raw_clip().save(tmp_path / "classifier")
    thresholds.save(tmp_path / "thresholds.json")
    predictor = load_predictor(tmp_path / "classifier", "cpu")
    assert export_onnx(predictor, tmp_path / "classifier.onnx") < 1e-4
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    assert float(predictor.map(pixels, "ball").sum()) == pytest.approx(1)
    assert predictor.decide(predictor.scores(pixels[None])).probabilities.shape == (1, 2)


def test_crops_are_exported(registry: Path, label_space: LabelSpace, thresholds: Thresholds, tmp_path: Path) -> None:
    plugin = load_plugin("classifiers", "dual_prompt")
    backbone = {"model": f"local-dir:{registry / 'backbone'}"}
    config = plugin.Config(backbone=backbone, num_context_tokens=2, crop_weight=0.5)
    plugin.build(config, label_space, torch.device("cpu")).save(tmp_path / "classifier")
    thresholds.save(tmp_path / "thresholds.json")
    predictor = load_predictor(tmp_path / "classifier", "cpu")
    assert predictor.classifier.crop_weight == 0.5
    assert export_onnx(predictor, tmp_path / "classifier.onnx") < 1e-4


@pytest.mark.parametrize("tower", TIMM)
def test_a_backbone_of_timms_is_exported_and_served(
    tower: str, label_space: LabelSpace, thresholds: Thresholds, tmp_path: Path
) -> None:
    plugin = load_plugin("classifiers", "dual_prompt")
    backbone = {"model": write_timm_backbone(tmp_path / "backbone", tower)}
    classifier = plugin.build(plugin.Config(backbone=backbone, num_context_tokens=2), label_space, torch.device("cpu"))
    for branch in classifier.fusion:
        nn.init.normal_(branch.norm.weight)
    classifier.save(tmp_path / "classifier")
    thresholds.save(tmp_path / "thresholds.json")
    predictor = load_predictor(tmp_path / "classifier", "cpu")
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(predictor.scores(pixels[None]), classifier(pixels[None].float() / 255))
    assert predictor.map(pixels, "ball").shape == (4, 4)
    assert export_onnx(predictor, tmp_path / "classifier.onnx") < 1e-4


def test_a_cache_of_generated_images_is_exported(
    registry: Path, label_space: LabelSpace, thresholds: Thresholds, tmp_path: Path
) -> None:
    plugin = load_plugin("classifiers", "dual_prompt")
    backbone = {"model": f"local-dir:{registry / 'backbone'}"}
    config = plugin.Config(backbone=backbone, num_context_tokens=2, cache={})
    classifier = plugin.build(config, label_space, torch.device("cpu"))
    images = torch.randint(0, 256, (20, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        plain, features = classifier.without_cache(images.float() / 255)
    spread = F.normalize(features - features.mean(0), dim=-1)  # random features are nearly alike
    classifier.cache.fill(spread, torch.tensor([[1, -1], [0, -1]] * 10))
    classifier.cache.use({"cache_alpha": 8, "cache_beta": 1000})
    classifier.save(tmp_path / "classifier")
    thresholds.save(tmp_path / "thresholds.json")
    predictor = load_predictor(tmp_path / "classifier", "cpu")
    scores = predictor.scores(images)
    assert float((scores - plain.sigmoid()).abs()[:, 0].max()) > 0.05
    assert export_onnx(predictor, tmp_path / "classifier.onnx") < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "classifier.onnx", providers=["CPUExecutionProvider"])
    exported = session.run(None, {"images": (images.float() / 255).numpy()})[0]
    np.testing.assert_allclose(exported, scores.numpy(), atol=1e-4)


def test_the_file_says_what_its_scores_are_and_the_card_lies_beside_it(
    registry: Path, exported: Path, thresholds: Thresholds
) -> None:
    said = {entry.key: entry.value for entry in onnx.load(exported / "classifier.onnx").metadata_props}
    assert json.loads(said["labels"]) == ["tea cup", "ball"]
    assert json.loads(said["unseen"]) == ["tea cup"]
    assert json.loads(said["thresholds"])["ball"]["threshold"] == thresholds.rules["ball"].threshold
    assert json.loads(said["origin"])["version"] == "1"
    assert said["image_px"] == "64"
    assert "bicubic" in said["preprocessing"]
    assert (exported / "MODEL_CARD.md").read_text() == (registry / "models" / "MODEL_CARD.md").read_text()


def test_a_file_that_answers_otherwise_is_not_written(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier that is traced while it adds nothing, and then adds something, stands for a faulty exporter."""
    predictor = load_predictor(registry / "models" / "classifier", "cpu")

    class Drifting(nn.Module):
        image_px, drift = predictor.classifier.image_px, 0.0

        def look(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            scores, features = predictor.classifier.look(images)
            return (scores if torch.compiler.is_exporting() else scores + 2e-4), features

    faulty = load_predictor(registry / "models" / "classifier", "cpu")
    faulty.classifier = Drifting().eval()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"answers differ from torch's by up to 2.0e-04, more than 1e-04"):
        export_onnx(faulty, tmp_path / "classifier.onnx")
    assert not (tmp_path / "classifier.onnx").exists()


def test_an_answer_that_is_no_number_is_never_taken_for_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, path: str, providers: list[str]) -> None: ...

        def run(self, names: tuple[str, ...], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            means = inputs["images"].mean((1, 2, 3))
            return [means, means * (np.nan if len(means) == BATCHES[-1] else 1)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    classifier = SimpleNamespace(image_px=8, look=lambda images: (images.mean((1, 2, 3)),) * 2)
    assert np.isnan(largest_difference(SimpleNamespace(classifier=classifier), Path("classifier.onnx")))


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    options = ["--model", "x", "-o", str(tmp_path / "note.txt")]
    result = CliRunner().invoke(cli.app, ["export", *options], terminal_width=200)
    assert result.exit_code == 1
    assert "is a file: name a folder" in result.output
    assert (tmp_path / "note.txt").read_text() == "mine"
