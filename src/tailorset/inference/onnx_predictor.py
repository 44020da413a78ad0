"""A predictor whose classifier is computed by ONNX Runtime on the CPU, with the same answers as torch."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from tailorset.classifiers import Classifier
from tailorset.inference.onnx import INPUT, ONNX_FILE, OUTPUTS, UNTIL_CLOSED
from tailorset.inference.predictor import Predictor, model_files, open_predictor

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PACKAGES = ("onnx", "onnxruntime", "onnxscript")


class NotExportable(ValueError):
    """A classifier that the exporter cannot write, or that ONNX Runtime answers differently."""


class OnnxClassifier:
    """A classifier that `look`s by ONNX Runtime; heat maps and everything else are the torch classifier's."""

    def __init__(self, classifier: Classifier, session: InferenceSession) -> None:
        self._classifier, self._session = classifier, session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._classifier, name)

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, P, P) float in [0, 1] -> (B, L) probabilities, and (B, D) features."""
        scores, features = self._session.run(OUTPUTS, {INPUT: images.numpy()})
        return torch.from_numpy(scores), torch.from_numpy(features)


def load_onnx_predictor(model: str | Path) -> Predictor:
    """Load a model as `load_predictor` does, export it and open the export; takes a minute or two.

    Raises:
        ValueError: a package is missing, or the model cannot be used; NotExportable if only its export fails.
    """
    check_packages()
    with model_files(model) as (folder, origin), tempfile.TemporaryDirectory() as work:
        predictor = open_predictor(folder, origin, torch.device("cpu"))
        path = Path(work) / ONNX_FILE
        export_apart(folder, path, origin.title)
        return with_session(predictor, open_session(path))


def check_packages() -> None:
    """Check that the exporter and ONNX Runtime are installed.

    Raises:
        ValueError: names those that are not.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ValueError(
            f"backend 'onnx' needs {', '.join(missing)}, not installed here: pip install 'tailorset[serve]', or choose"
            " backend torch"
        )


def export_apart(folder: Path, path: Path, title: str) -> None:
    """Export a classifier's folder in another process: the exporter changes torch for all threads while it runs.

    That process ends when this one does, however that ends: its standard input is then closed.

    Raises:
        NotExportable: names the cause.
    """
    command = [sys.executable, "-P", "-m", "tailorset.inference.onnx", str(folder), str(path), UNTIL_CLOSED]
    with subprocess.Popen(  # -P: no code from here
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read().strip().splitlines()
        process.wait()
    if process.returncode:
        cause = said[-1] if said and process.returncode == 1 else f"exit status {process.returncode}"
        raise NotExportable(f"{title} cannot be served by ONNX Runtime ({cause}): choose backend torch")


def open_session(path: Path, spinning: bool = False) -> InferenceSession:
    """Open an exported file, with as many threads as torch.

    spinning: threads wait for the next batch without sleeping, at the cost of all else that needs the cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.log_severity_level = 3  # errors: it warns of every constant that it cannot fold
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def with_session(predictor: Predictor, session: InferenceSession) -> Predictor:
    """Return the predictor, whose classifier is computed by the session from now on."""
    predictor.classifier = cast(Classifier, OnnxClassifier(predictor.classifier, session))
    return predictor
