"""Findings of a check."""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    """A fact about the project and, if it stops or slows a run, its remedy."""

    status: Status
    subject: str
    text: str
    remedy: str = ""

    @property
    def sentence(self) -> str:
        """The fact and its remedy, on one line."""
        return f"{self.text.removesuffix('.')}: {self.remedy}"
