"""The gate before training: check every manifest, report the findings, and stop if one is critical."""

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
from tailorset.records import NEGATIVES
from tailorset.storage.checksums import file_digest
from tailorset.storage.files import write_json
from tailorset.validation.gate import RuleFinding, check_products, critical, report
from tailorset.validation.page import render
from tailorset.validation.products import Products

MANIFESTS = {
    "prompts": PROMPTS,
    "real": REAL / "manifest.parquet",
    "targets": REAL / "targets.parquet",
    "synthetic": SYNTHETIC / "manifest.parquet",
    "filtered": FILTERED / "manifest.parquet",
    NEGATIVES: SYNTHETIC / NEGATIVES / "manifest.parquet",  # whose folder is not there without negatives
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
        manifests = {name: path for name, path in MANIFESTS.items() if name != NEGATIVES or path.parent.exists()}
        products = Products(**{name: pd.read_parquet(path) for name, path in manifests.items()})
        refused = refused_replies(json.loads(WRITTEN.read_text(encoding="utf-8")))
        findings = check_products(products, stage.label_space, stage.params.validate_data, refused)
        content = report(findings)
        write_json(REPORT, content)
        PAGE.write_text(render(findings), encoding="utf-8")
        stage.log_figures(REPORT, PAGE)
        stage.save_metrics(
            {
                "validation/rules": len(findings),
                "validation/critical": content["num_critical"],
                "validation/warnings": content["num_warnings"],
            }
        )
        stop_on_critical(findings)
        write_json(PASS_FILE, {str(path): file_digest(path) for path in manifests.values()})


def stop_on_critical(findings: Sequence[RuleFinding]) -> None:
    """Log the warnings, and exit with 1 if a finding is critical."""
    for finding in findings:
        if finding.is_warning:
            log.warning("%s", finding)
    if faults := critical(findings):
        lines = [f"The data must not be trained on: {len(faults)} critical findings.", *map(str, faults)]
        sys.exit("\n".join([*lines, f"page: {PAGE}, report: {REPORT}"]))


if __name__ == "__main__":
    main()
