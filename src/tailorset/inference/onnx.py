"""The whole classifier as one ONNX file: photos' pixels in, scores out, and all metadata that a reader needs.

`python -m tailorset.inference.onnx FOLDER FILE` exports a classifier's folder in a process of its own; with a third
argument `until-closed`, it ends early when its standard input is closed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tailorset.classifiers import Classifier
from tailorset.inference.predictor import Predictor, Provenance, model_files, open_predictor
from tailorset.project.layout import MODEL_CARD
from tailorset.seeding import torch_generator
from tailorset.storage.files import atomic_output

ONNX_FILE = "classifier.onnx"
INPUT, OUTPUTS = "images", ("scores", "features")
UNTIL_CLOSED = "until-closed"
TOLERANCE = 1e-4
BATCHES = (1, 2, 5)  # it is traced with 2


class Looking(nn.Module):
    """The function that is exported: what the classifier sees in images."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier.look(images)


def export(model: str, folder: Path) -> Iterator[str]:
    """Write classifier.onnx and, if there is one next to the classifier, MODEL_CARD.md; yield a line on each.

    model: as `load_predictor` takes it.
    """
    with model_files(model) as (classifier, origin):
        predictor = open_predictor(classifier, origin, torch.device("cpu"))
        difference = export_onnx(predictor, folder / ONNX_FILE)
        yield f"{folder / ONNX_FILE}: differs from torch by {difference:.1e} at most"
        card = classifier.parent / MODEL_CARD.name
        if card.exists():
            with suppress(shutil.SameFileError):
                shutil.copy(card, folder)
            yield f"{folder / card.name}"
        else:
            yield f"There is no {card.name} next to {model}: `dvc repro register_model` writes it."


def export_onnx(predictor: Predictor, path: Path) -> float:
    """Write the classifier as a function of images (B, 3, P, P), float32 in [0, 1], for any B.

    Outputs: scores (B, L), and features (B, D), of which novelty is computed.
    Metadata: labels, seen, unseen, thresholds (JSON each), image_px, preprocessing, origin.

    Returns:
        The largest difference from torch.

    Raises:
        ValueError: onnxruntime answers differently, or one file cannot hold the classifier; nothing is written.
    """
    import onnx
    import torch.onnx
    from google.protobuf.message import EncodeError

    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it logs every node that it does not fold
    program = torch.onnx.export(
        Looking(predictor.classifier).eval(),
        (_example(predictor, 2),),
        input_names=[INPUT],
        output_names=OUTPUTS,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    onnx.helper.set_model_props(model := program.model_proto, metadata(predictor))
    with atomic_output(path) as partial:
        try:
            onnx.save(model, partial)
        except EncodeError as error:
            raise ValueError(
                f"the classifier is larger than the 2 GiB that one ONNX file can hold: {path} was not written; it can"
                " be served by torch (`tailorset serve --backend torch`)"
            ) from error
        onnx.checker.check_model(str(partial))
        difference = largest_difference(predictor, partial)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"onnxruntime's answers differ from torch's by up to {difference:.1e}, more than {TOLERANCE:.0e}:"
                f" {path} was not written"
            )
    return difference


def metadata(predictor: Predictor) -> dict[str, str]:
    """Return the file's metadata: names of the scores, and how a photo becomes its input."""
    px = predictor.classifier.image_px
    rules, photo_px = predictor.thresholds.rules if predictor.thresholds else {}, predictor.rules.photo_px
    sizes = f"shorter side at most {photo_px}; squash to {px} x {px}" if photo_px else f"squash to {px} x {px}"
    return {
        "labels": json.dumps(predictor.labels),
        "seen": json.dumps(predictor.seen),
        "unseen": json.dumps(predictor.unseen),
        "thresholds": json.dumps({label: asdict(rule) for label, rule in rules.items()}),
        "image_px": str(px),
        "preprocessing": f"EXIF rotation; RGB; {sizes}; bicubic with antialiasing; / 255; (B, 3, H, W)",
        "origin": json.dumps(asdict(predictor.origin)),
    }


def largest_difference(predictor: Predictor, path: Path) -> float:
    """Return the largest difference between outputs by onnxruntime and torch, over batches of several sizes.

    Outputs above 1 (scores never are) are compared relative to the largest of them.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    differences = []
    for size in BATCHES:
        images = _example(predictor, size)
        with torch.inference_mode():
            expected = predictor.classifier.look(images)
        for ours, right in zip(session.run(OUTPUTS, {INPUT: images.numpy()}), expected, strict=True):
            scale = max(1.0, float(right.abs().max()))
            differences.append(np.abs(ours - right.cpu().numpy()).max() / scale)
    return float(np.max(differences))  # NaN if one is, which max() may pass over


def _example(predictor: Predictor, batch_size: int) -> Tensor:
    """Draw smooth random colours: on plain noise all scores are nearly equal."""
    px = predictor.classifier.image_px
    coarse = torch.rand(batch_size, 3, 4, 4, generator=torch_generator("export", batch_size))
    return F.interpolate(coarse, size=(px, px), mode="bicubic").clamp(0, 1)


def main(folder: str, path: str, until: str = "") -> None:
    """Export the classifier in a folder; what prevents it becomes one line on stderr, and exit status 1.

    until: UNTIL_CLOSED = end early when standard input is closed, as it is when the process that started this one ends.
    """
    if until == UNTIL_CLOSED:
        threading.Thread(target=_end_when_closed, daemon=True).start()
    try:
        predictor = open_predictor(Path(folder), Provenance(folder), torch.device("cpu"))
        export_onnx(predictor, Path(path))
    except Exception as error:  # noqa: BLE001 - an exporter may fail in any way
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _end_when_closed() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
