"""The registered model, as code: MLflow runs this file to load it. Image bytes in, a decision per label out.

Nothing is unpickled: the weights are safetensors, everything else is JSON. The package travels with the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, Schema
from torch import Tensor

from tailorset.inference.predictor import CLASSIFIER, answer_columns, load_predictor
from tailorset.inference.uploads import file_bytes

IMAGE = "image"
TYPES = {float: DataType.double, str: DataType.string}


class ServedClassifier(PythonModel):
    """One column `image` (a file's bytes, of any size and mode; base64 over HTTP) -> four columns per label."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the classifier's folder once per process, on a GPU where there is one."""
        self.predictor = load_predictor(Path(context.artifacts[CLASSIFIER]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per image; the columns of `signature`.

        Raises:
            ValueError: no such column, or bytes that are no image; names the row.
        """
        if IMAGE not in model_input:
            raise ValueError(f"The columns are {list(model_input)}: give one named {IMAGE!r} with the bytes of a file.")
        rows = [self._pixels(number, content) for number, content in enumerate(model_input[IMAGE])]
        looked = self.predictor.look(torch.stack(rows))
        return pd.DataFrame(self.predictor.answers(looked), index=model_input.index)

    def _pixels(self, row: int, content: object) -> Tensor:
        try:
            return self.predictor.pixels(file_bytes(content))
        except ValueError as error:
            raise ValueError(f"row {row}: {error}") from None


def signature(labels: Iterable[str]) -> ModelSignature:
    """Binary column `image` in. Out: how unlike the photos of training it is (above 1: very), and of every label the
    calibrated probability, the decision (present, absent or open), the threshold of it, and the raw score."""
    outputs = [ColSpec(TYPES[kind], name) for name, kind in answer_columns(labels).items()]
    return ModelSignature(inputs=Schema([ColSpec(DataType.binary, IMAGE)]), outputs=Schema(outputs))


mlflow.models.set_model(ServedClassifier())
