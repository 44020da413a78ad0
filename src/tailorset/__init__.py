"""Name labels, get a multi-label image classifier: labels nobody annotated learn from tailored generated images."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailorset.inference.library import HeatMap, Model, load
    from tailorset.project.drawing import GeneratedImage, generate

# Quiet, offline and without caches of pickles unless the user says otherwise; set before the libraries are imported.
for _name, _value in {
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
}.items():
    os.environ.setdefault(_name, _value)
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", os.environ["HF_HUB_OFFLINE"])  # only downloads are worth a bar

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # of what is wrong with an image it also raises all that matters

if Path(sys.argv[0]).parent.name == "pipeline":  # a stage: from here on, so that Ctrl-C while it imports is covered too
    from tailorset.failures import explain_failures

    explain_failures(Path(sys.argv[0]).stem)

__version__ = "0.1.0"
__all__ = ["GeneratedImage", "HeatMap", "Model", "generate", "load"]
_HOMES = {"HeatMap": "inference.library", "Model": "inference.library", "load": "inference.library"}
_HOMES |= {"GeneratedImage": "project.drawing", "generate": "project.drawing"}


def __getattr__(name: str) -> Any:
    """Import what the library offers where it is first used: torch alone takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tailorset' has no attribute {name!r}: choose from {', '.join(__all__)}")
    return getattr(importlib.import_module(f"tailorset.{_HOMES[name]}"), name)
