"""The registered model, as code: MLflow runs this file to load it. Image bytes in, a decision per label out.

Nothing is unpickled: the weights are safetensors, everything else is JSON. The package is stored with the model.
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

from tailorset.inference.predictor import CLASSIFIER, answer_columns, load_predictor
from tailorset.inference.uploads import file_bytes, row_named

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
        """Return one row per image, with the columns of `signature`.

        Raises:
            ValueError: no such column, no row, or bytes that are not an image; names the row.
        """
        if IMAGE not in model_input:
            raise ValueError(f"The columns are {list(model_input)}: give one named {IMAGE!r} with the bytes of a file.")
        if model_input.empty:
            raise ValueError("There are no rows: give one per image.")
        rows = []
        for number, content in enumerate(model_input[IMAGE]):
            with row_named(number):
                rows.append(self.predictor.pixels(file_bytes(content)))
        looked = self.predictor.look(torch.stack(rows))
        return pd.DataFrame(self.predictor.answers(looked), index=model_input.index)


def signature(labels: Iterable[str]) -> ModelSignature:
    """Return the signature. In: binary column `image`. Out: novelty (above 1: unlike the photos of training), and per
    label the calibrated probability, the decision (present, absent or open), its threshold, and the raw score."""
    outputs = [ColSpec(TYPES[kind], name) for name, kind in answer_columns(labels).items()]
    return ModelSignature(inputs=Schema([ColSpec(DataType.binary, IMAGE)]), outputs=Schema(outputs))


mlflow.models.set_model(ServedClassifier())
