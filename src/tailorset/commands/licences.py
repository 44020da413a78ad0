"""Findings on licences: use that is forbidden or not certain, and use of the products that is allowed."""

from __future__ import annotations

from collections.abc import Iterator

from tailorset.commands.findings import Finding
from tailorset.project.licences import allowances, forbidden, parts_of
from tailorset.project.params import Params

SUBJECT = "licences"


def licence_findings(params: Params) -> Iterator[Finding]:
    """Check the licences of all models and of the data set; nothing is downloaded."""
    parts = parts_of(params)
    is_asked = params.licences == "commercial"
    for text in forbidden(parts):
        remedy = "name another one (docs/models.md)" + (", or set licences to any" if is_asked else "")
        yield Finding("error" if is_asked else "warning", SUBJECT, text, remedy)
    for part in parts if is_asked else ():
        if part.licence.commercial is None:
            text = f"{part.key}: {part.title} may or may not be used commercially ({part.licence.title})"
            yield Finding("warning", SUBJECT, text, "look up its terms")
    for allowance in allowances(parts):
        yield Finding("ok", SUBJECT, str(allowance))
