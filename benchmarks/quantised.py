"""Ways to store an exported classifier in int8, by ONNX Runtime's quantisation.

Each writes a second file: (exported file, file to write, photos (N, 3, P, P) uint8 to set ranges by).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from torch import Tensor

from tailorset.inference.onnx import INPUT

NUM_CALIBRATION = 64  # photos
PRODUCTS = ["MatMul", "Gemm"]
Quantise = Callable[[Path, Path, Tensor], None]


class CalibrationPhotos(CalibrationDataReader):
    """Photos one by one, as the exported file takes them."""

    def __init__(self, pixels: Tensor) -> None:
        images: NDArray[np.float32] = (pixels.float() / 255).numpy()
        self._inputs: Iterator[dict[str, NDArray[np.float32]]] = iter([{INPUT: image[None]} for image in images])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._inputs, None)


def matrix_products(exported: Path, target: Path, pixels: Tensor) -> None:
    """Quantise products with weights; ranges of activations are measured in each batch."""
    quantize_dynamic(exported, target, op_types_to_quantize=PRODUCTS, weight_type=QuantType.QInt8)


def all_layers(exported: Path, target: Path, pixels: Tensor) -> None:
    """Quantise convolutions as well."""
    quantize_dynamic(exported, target, op_types_to_quantize=[*PRODUCTS, "Conv"], weight_type=QuantType.QInt8)


def convolutions(exported: Path, target: Path, pixels: Tensor) -> None:
    """Quantise convolutions by channel, with fixed ranges of activations, which is fastest on a CPU."""
    quantize_static(
        exported,
        target,
        CalibrationPhotos(pixels[:NUM_CALIBRATION]),
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


QUANTISED: Mapping[str, Quantise] = {
    "int8 products, dynamic": matrix_products,
    "int8 products and convolutions, dynamic": all_layers,
    "int8 convolutions, static": convolutions,
}
