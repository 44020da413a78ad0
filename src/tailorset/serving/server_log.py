"""The server's log: one line per event as `key=value` pairs (logfmt), readable for people and log collectors."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

ACCESS = "tailorset.access"
MAX_CHARS = 1000  # of a value: a path comes from outside
PROBES = ("/health", "/ready", "/metrics")  # requested every few seconds: logged only if they fail
_PLAIN = re.compile(r"[\w./:@%+-]+", re.ASCII)
_log = logging.getLogger(ACCESS)


class LogfmtFormatter(logging.Formatter):
    """time, level, and the record's own fields, or its message; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        fields |= getattr(record, "fields", None) or {"message": record.getMessage()}
        line = " ".join(f"{name}={_value(value)}" for name, value in fields.items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def log_access(scope: Mapping[str, Any], status: int, seconds: float) -> None:
    """Log that a request was answered; a fault of the server is an error, a refusal a warning."""
    if scope["path"] in PROBES and status < 400:
        return
    level = logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO
    client = (scope.get("client") or ("",))[0]
    fields = {"method": scope["method"], "path": scope["path"], "status": status}
    _log.log(level, "request", extra={"fields": fields | {"seconds": f"{seconds:.4f}", "client": client}})


def log_config() -> dict[str, Any]:
    """Return settings for uvicorn and `logging.config.dictConfig`: everything to stderr in one format."""
    loggers = {name: {"handlers": ["stderr"], "level": "INFO", "propagate": False} for name in ("uvicorn", ACCESS)}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"logfmt": {"()": LogfmtFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "logfmt"}},
        "loggers": loggers,
    }


def _value(value: object) -> str:
    """Return the text unchanged, or quoted with everything escaped that could end a line or a value."""
    text = str(value)[:MAX_CHARS]
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
