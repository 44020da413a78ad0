"""Check tables with Great Expectations: findings for people and programs.

Importing Great Expectations takes seconds, so only the validation stage imports this module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import great_expectations as gx
from great_expectations import expectations as gxe
from great_expectations.core import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig

from tailorset.records import LabelSpace
from tailorset.validation.products import Products
from tailorset.validation.rules import DataRule, Severity, Table
from tailorset.validation.settings import ValidateData
from tailorset.validation.suites import content_tables, layout_tables

_NUM_EXAMPLES = 5


@dataclass(frozen=True)
class RuleFinding:
    """Result of one rule. `examples` are offending rows as "row: value"; nothing in it depends on time."""

    table: str
    title: str
    expectation: str
    severity: Severity
    success: bool
    num_rows: int
    num_offending: int  # 0 if the rule is on the table as a whole
    observed: str  # what was found instead, for rules on the table as a whole
    examples: tuple[str, ...]
    remedy: str

    @property
    def is_critical(self) -> bool:
        return not self.success and self.severity == "critical"

    @property
    def is_warning(self) -> bool:
        return not self.success and self.severity == "warning"

    def __str__(self) -> str:
        found = f"{self.num_offending} of {self.num_rows} rows" if self.num_offending else self.observed
        lines = [f"[{self.severity}] {self.table}: {self.title} ({self.expectation}): {found}"]
        lines += [f"    {example}" for example in self.examples]
        return "\n".join([*lines, f"    remedy: {self.remedy}"])


class Gate:
    """Check tables against their rules."""

    def __init__(self) -> None:
        self.context = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
        self.source = self.context.data_sources.add_pandas("tables")

    def check(self, tables: Sequence[Table]) -> list[RuleFinding]:
        """Return the findings of every rule, in the order of the tables."""
        return [finding for table in tables for finding in self._check_table(table)]

    def _check_table(self, table: Table) -> Iterator[RuleFinding]:
        batch = self.source.add_dataframe_asset(table.name).add_batch_definition_whole_dataframe("all rows")
        suite = gx.ExpectationSuite(name=table.name, expectations=[_expectation(rule) for rule in table.rules])
        definition = gx.ValidationDefinition(name=table.name, data=batch, suite=self.context.suites.add(suite))
        checkpoint = gx.Checkpoint(
            name=table.name,
            validation_definitions=[self.context.validation_definitions.add(definition)],
            result_format=_result_format(table),
        )
        outcome = self.context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": table.frame})
        (validation,) = outcome.run_results.values()
        results = {result.expectation_config.meta["title"]: result for result in validation.results}
        for rule in table.rules:
            yield _finding(table, rule, results[rule.title])


def check_products(
    products: Products, label_space: LabelSpace, settings: ValidateData, refused: Mapping[str, float]
) -> list[RuleFinding]:
    """Return all findings; the content is checked only if every manifest has its columns.

    refused: number of the LLM's replies that were refused, by reason.
    """
    gate = Gate()
    findings = gate.check(layout_tables(products, label_space))
    if critical(findings):
        return findings
    return findings + gate.check(content_tables(products, label_space, settings, refused))


def critical(findings: Sequence[RuleFinding]) -> list[RuleFinding]:
    """Return the findings with which the data must not reach training."""
    return [finding for finding in findings if finding.is_critical]


def report(findings: Sequence[RuleFinding]) -> dict[str, Any]:
    """Return the findings as JSON: equal data give equal bytes."""
    return {
        "passed": not critical(findings),
        "num_critical": len(critical(findings)),
        "num_warnings": sum(finding.is_warning for finding in findings),
        "findings": [asdict(finding) for finding in findings],
    }


def _expectation(rule: DataRule) -> gxe.Expectation:
    meta = {"title": rule.title, "remedy": rule.remedy}
    notes = f"{rule.title}. If not: {rule.remedy}."
    return getattr(gxe, rule.expectation)(**rule.arguments, severity=rule.severity, meta=meta, notes=notes)


def _result_format(table: Table) -> dict[str, Any]:
    if "row" not in table.frame:
        return {"result_format": "SUMMARY"}
    return {"result_format": "SUMMARY", "unexpected_index_column_names": ["row"]}


def _observed(details: Mapping[str, Any]) -> str:
    """Return what a rule on the whole table found; for a set of values, those missing from it and those too many."""
    if "partial_missing_list" not in details:
        return str(details.get("observed_value", ""))
    lacking, foreign = details["partial_missing_list"], details.get("partial_unexpected_list", [])
    return f"missing: {', '.join(map(str, lacking)) or 'none'}; unexpected: {', '.join(map(str, foreign)) or 'none'}"


def _finding(table: Table, rule: DataRule, result: ExpectationValidationResult) -> RuleFinding:
    """Turn a result into a finding.

    Raises:
        RuntimeError: the expectation could not be computed: no verdict is not a pass.
    """
    details = result.result
    if result.exception_info and result.exception_info.get("raised_exception"):
        raise RuntimeError(f"{table.name}: {rule.title}: {result.exception_info['exception_message']}")
    rows = details.get("partial_unexpected_index_list") or []
    column = rule.arguments.get("column", "")
    return RuleFinding(
        table=table.name,
        title=rule.title,
        expectation=rule.expectation,
        severity=rule.severity,
        success=bool(result.success),
        num_rows=len(table.frame),
        num_offending=int(details.get("unexpected_count", 0)),
        observed=_observed(details),
        examples=tuple(f"{row['row']}: {row[column]}" for row in rows[:_NUM_EXAMPLES]),
        remedy=rule.remedy,
    )
