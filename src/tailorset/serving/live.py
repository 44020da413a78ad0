"""The model that answers now: it follows its alias in the registry while requests are served."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Literal

import torch

from tailorset.inference.onnx_predictor import NotExportable, load_onnx_predictor
from tailorset.inference.predictor import REGISTRY, Predictor, load_predictor

logger = logging.getLogger("uvicorn.error")
Backend = Literal["torch", "onnx"]  # what computes scores: torch on a GPU, if any, or ONNX Runtime on the CPU


class LiveModel:
    """A predictor that can be replaced. A request keeps the `predictor` it took: nothing in flight is dropped."""

    def __init__(
        self, uri: str, on_load: Callable[[Predictor], None] = lambda _: None, backend: Backend = "torch"
    ) -> None:
        """Load the model of the folder, or the version that the registry URI stands for now.

        Raises:
            ValueError: there is no such model, or the backend cannot compute it; names the remedy.
        """
        self.uri, self._on_load, self.backend = uri, on_load, backend
        self._refused = ""  # version that cannot be exported or has other labels: it is not loaded again
        self.predictor = self._load()
        self._on_load(self.predictor)

    def describe(self) -> str:
        """Return the model's URI and version, and its numbers of labels."""
        predictor = self.predictor
        version = f" version {predictor.origin.version}" if predictor.origin.version else ""
        labels = f"{len(predictor.seen)} seen and {len(predictor.unseen)} unseen labels"
        return f"{self.uri}{version}, {labels}" + (", by ONNX Runtime" if self.backend == "onnx" else "")

    @property
    def follows_alias(self) -> bool:
        return self.uri.startswith(REGISTRY) and "@" in self.uri

    def refresh(self) -> bool:
        """Load the new version if the alias has moved, and let it answer once before it takes over; True if it moved.

        Raises:
            ValueError: the registry does not answer, or the new version cannot be used or has other labels: the old one
                stays.
        """
        from tailorset.inference.versions import find_version

        version = str(find_version(self.uri).version)
        if version in (self.predictor.origin.version, self._refused):
            return False
        try:
            predictor = self._load()
        except NotExportable:
            self._refused = version
            raise
        if set(predictor.labels) != set(self.predictor.labels):
            self._refused = version
            raise ValueError(
                f"version {predictor.origin.version} has other labels, which clients do not expect:"
                " start the server again to use it"
            )
        self.predictor = predictor
        self._on_load(predictor)
        return True

    def follow(self, every_s: float, stop: threading.Event) -> None:
        """Refresh repeatedly until `stop`; a failure is logged once, and the model in use stays."""
        failure = ""
        while not stop.wait(every_s):
            try:
                if self.refresh():
                    logger.info("%s is now version %s", self.uri, self.predictor.origin.version)
                failure = ""
            except Exception as error:  # noqa: BLE001 - a registry out of reach must not end the service
                if str(error) != failure:
                    logger.warning("%s: version %s stays: %s", self.uri, self.predictor.origin.version, error)
                failure = str(error)

    def _load(self) -> Predictor:
        predictor = load_onnx_predictor(self.uri) if self.backend == "onnx" else load_predictor(self.uri)
        px = predictor.classifier.image_px
        predictor.scores(torch.zeros(1, 3, px, px, dtype=torch.uint8))  # the first answer is the slowest
        return predictor
