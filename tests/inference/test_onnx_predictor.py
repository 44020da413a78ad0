"""Answers by ONNX Runtime: those of torch, whatever the batch; and a clear line where it cannot give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tailorset.inference import onnx, onnx_predictor
from tailorset.inference.onnx import TOLERANCE
from tailorset.inference.onnx_predictor import NotExportable, export_apart, load_onnx_predictor
from tailorset.inference.predictor import Predictor, load_predictor
from tests.registered import scores_of


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[Predictor, Predictor]:
    return load_predictor(folder, "cpu"), load_onnx_predictor(folder)


@pytest.mark.parametrize("num_photos", [1, 2, 7, 70])
def test_scores_and_novelty_are_those_of_torch_for_any_batch(
    pair: tuple[Predictor, Predictor], num_photos: int
) -> None:
    generator = torch.Generator().manual_seed(num_photos)
    pixels = torch.randint(0, 256, (num_photos, 3, 64, 64), dtype=torch.uint8, generator=generator)
    by_torch, by_onnx = (predictor.look(pixels, batch_size=64) for predictor in pair)
    torch.testing.assert_close(by_onnx.scores, by_torch.scores, atol=TOLERANCE, rtol=0)
    assert by_torch.novelty is not None
    torch.testing.assert_close(by_onnx.novelty, by_torch.novelty, atol=1e-3, rtol=1e-3)


def test_photos_of_all_kinds_get_the_same_decisions(pair: tuple[Predictor, Predictor], photos: Path) -> None:
    files = [path.read_bytes() for path in sorted(photos.iterdir())]
    by_torch, by_onnx = (scores_of(predictor, files) for predictor in pair)
    torch.testing.assert_close(by_onnx, by_torch, atol=TOLERANCE, rtol=0)
    assert pair[1].decide(by_onnx).words == pair[0].decide(by_torch).words


def test_heat_maps_are_those_of_torch(pair: tuple[Predictor, Predictor]) -> None:
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(*(predictor.map(pixels, "ball") for predictor in pair))


def test_torch_computes_no_scores(pair: tuple[Predictor, Predictor], monkeypatch: pytest.MonkeyPatch) -> None:
    classifier: Any = pair[1].classifier
    monkeypatch.setattr(classifier._classifier, "features", None)  # every answer of torch begins with it
    assert pair[1].scores(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 2)


def test_a_missing_package_is_named_before_the_model_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_predictor, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(ValueError, match=r"needs onnxruntime, not installed here: pip install 'tailorset\[serve\]'"):
        load_onnx_predictor("no such folder")


def test_what_cannot_be_exported_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotExportable) as raised:
        export_apart(tmp_path, tmp_path / "classifier.onnx", "mine")
    assert str(raised.value).startswith("mine cannot be served by ONNX Runtime (ValueError: ")
    assert str(raised.value).endswith("choose backend torch")
    assert "\n" not in str(raised.value)


def test_whatever_the_exporter_raises_ends_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator\nand a page of advice")

    monkeypatch.setattr(torch.onnx, "export", failing)
    with pytest.raises(SystemExit, match=r"^RuntimeError: no such operator and a page of advice$"):
        onnx.main(str(folder), str(tmp_path / "classifier.onnx"))
