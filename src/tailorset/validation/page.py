"""Page of the data checks, failed rules first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from tailorset.pages import render_page
from tailorset.validation.gate import RuleFinding

TEMPLATE = "validation/page.html"


def render(findings: Sequence[RuleFinding]) -> str:
    """Return the page: failed rules with their remedies, then every rule of every table."""
    tables = [(name, list(rows)) for name, rows in groupby(findings, key=lambda finding: finding.table)]
    failed = [finding for finding in findings if finding.is_critical]
    failed += [finding for finding in findings if finding.is_warning]
    return render_page(TEMPLATE, {"tables": tables, "failed": failed, "total": len(findings)}, {"found": found})


def found(finding: RuleFinding) -> str:
    """Return what a rule found: offending rows, or its view of the table as a whole."""
    if finding.num_offending:
        return f"{finding.num_offending:,} of {finding.num_rows:,} rows break it"
    return finding.observed if not finding.success else f"{finding.num_rows:,} rows looked at"
