"""What a check of a project finds."""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    """What is so, and where it stands in the way of a run, what to do."""

    status: Status
    subject: str
    text: str
    remedy: str = ""
