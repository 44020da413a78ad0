"""Passing faults of a server, and the pauses after them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

MAX_PAUSE = 60.0  # seconds; if a server asks for more, its request fails
_BUSY = (408, 425, 429)
_NEVER = 501  # not implemented


def is_passing(status: int, text: str) -> bool:
    """Check that the same request may succeed later: the server is busy, out of order, or its JSON was cut off."""
    return status in _BUSY or (status >= 500 and status != _NEVER) or (status == 200 and _is_cut_off(text))


def pause(attempt: int) -> float:
    """Return seconds to wait after an attempt, counted from 0: doubled each time, with jitter."""
    return min(MAX_PAUSE, 2.0**attempt) * random.uniform(0.5, 1)


def asked_pause(headers: Mapping[str, str]) -> float:
    """Return the seconds that Retry-After asks for, as a number or as a date; 0 without a valid one."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def parsed(text: str) -> Any:
    """Return the JSON value of a text.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _is_cut_off(text: str) -> bool:
    """Check for the beginning of a JSON object, or for the blanks that gateways send while a model is at work."""
    if text.strip()[:1] != "{":
        return bool(text) and text.isspace()
    try:
        parsed(text)
    except ValueError:
        return True
    return False


def _seconds_until(date: str) -> float:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return 0.0
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
