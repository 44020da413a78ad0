"""The gate before training: checks every manifest, reports what it finds, and stops on what is critical."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tailorset.project.layout import FILTERED, PROMPTS, REAL, REPORTS, SYNTHETIC
from tailorset.project.stage import run_stage
from tailorset.prompts.contract import refused_replies
from tailorset.records import LabelSpace
from tailorset.storage.checksums import file_digest
from tailorset.storage.files import write_json
from tailorset.validation.gate import Finding, Gate, report
from tailorset.validation.page import render
from tailorset.validation.settings import ValidateData
from tailorset.validation.suites import Products, content_tables, layout_tables

MANIFESTS = {
    "prompts": PROMPTS,
    "real": REAL / "manifest.parquet",
    "targets": REAL / "targets.parquet",
    "synthetic": SYNTHETIC / "manifest.parquet",
    "filtered": FILTERED / "manifest.parquet",
}
PASS_FILE = Path("data/validated.json")
VALIDATION = REPORTS / "validation"
REPORT, PAGE = VALIDATION / "report.json", VALIDATION / "index.html"
WRITTEN = REPORTS / "write_prompts" / "metrics.json"

log = logging.getLogger(__name__)


def main() -> None:
    with run_stage("validate_data") as stage:
        PASS_FILE.unlink(missing_ok=True)
        shutil.rmtree(VALIDATION, ignore_errors=True)
        findings = check_products(Gate(), stage.label_space, stage.params.validate_data)
        content = report(findings)
        write_json(REPORT, content)
        PAGE.write_text(render(findings), encoding="utf-8")
        for path in (REPORT, PAGE):
            stage.log_figure(path)
        stage.save_metrics(
            {
                "validation/rules": len(findings),
                "validation/critical": content["num_critical"],
                "validation/warnings": content["num_warnings"],
            }
        )
        stop_on_critical(findings)
        write_json(PASS_FILE, {str(path): file_digest(path) for path in MANIFESTS.values()})


def check_products(gate: Gate, label_space: LabelSpace, settings: ValidateData) -> list[Finding]:
    """All findings; the content is looked at only where every manifest has its columns."""
    products = Products(**{name: pd.read_parquet(path) for name, path in MANIFESTS.items()})
    findings = gate.check(layout_tables(products, label_space))
    if any(finding.is_critical for finding in findings):
        return findings
    limits = (settings.max_template_share, settings.min_images_per_label, settings.annotated_unseen)
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))
    return findings + gate.check(content_tables(products, label_space, *limits, refused_replies(written)))


def stop_on_critical(findings: Sequence[Finding]) -> None:
    """Says what was found, and exits with 1 where it must not reach training."""
    for finding in findings:
        if finding.is_warning:
            log.warning("%s", finding)
    critical = [str(finding) for finding in findings if finding.is_critical]
    if critical:
        where = f"page: {PAGE}, report: {REPORT}"
        sys.exit("\n".join([f"The data must not be trained on: {len(critical)} critical findings.", *critical, where]))


if __name__ == "__main__":
    main()
