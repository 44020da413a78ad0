"""Name labels, get a multi-label image classifier: labels nobody annotated learn from tailored generated images."""

from __future__ import annotations

import os

# Quiet and offline unless the user says otherwise; set before any of these libraries is imported.
for _name, _value in {
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)

__version__ = "0.1.0"
