"""Executions of the pipeline next to each other: settings that differ, and figures with paired intervals.

Intervals are a bootstrap over the test photos, which all runs must share: they hold for these weights, and leave out
what another seed would change.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from rich.table import Table
from torch import Tensor

from tailorset.evaluation.bootstrap import (
    Estimate,
    Resamples,
    difference,
    draw_resamples,
    estimate,
    f1_at_k,
    figure_in_percent,
    interval_or_value,
    mean_average_precision,
)
from tailorset.evaluation.results import ANNOTATIONS, OURS, columns, percent
from tailorset.evaluation.score_table import read_scores
from tailorset.messages import count
from tailorset.project.layout import PER_LABEL, SCORES
from tailorset.project.tracking import EXECUTION_TAG, connect, is_set_up
from tailorset.storage.label_tables import read_label_table

NUM_RESAMPLES = 1000
SHORTEST_ID = 6  # characters of a run's id that may stand for it
NUM_NAMED = 8  # of the latest runs, in errors


@dataclass(frozen=True)
class Execution:
    """The parent run of one execution, with its params and metrics."""

    run: MlflowRun

    @property
    def name(self) -> str:
        return self.run.info.run_name

    @property
    def params(self) -> Mapping[str, str]:
        return self.run.data.params

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.run.data.metrics

    @cached_property
    def scores(self) -> Scores | None:
        """Scores of the test photos; None if the run stored none that can be read."""
        try:
            with tempfile.TemporaryDirectory() as folder:
                files = [
                    download_artifacts(run_id=self.run.info.run_id, artifact_path=path.name, dst_path=folder)
                    for path in (SCORES, PER_LABEL)
                ]
                return Scores.read(*map(Path, files))
        except (MlflowException, OSError, ValueError):  # not there, or damaged
            return None


@dataclass(frozen=True)
class Scores:
    """Our scores of N test photos for L labels, (N, L), and what the photos show, (N, L) in {1, 0, -1}."""

    image_ids: tuple[str, ...]
    names: tuple[str, ...]
    unseen: tuple[str, ...]
    scores: Tensor
    targets: Tensor

    @classmethod
    def read(cls, scores: Path, per_label: Path) -> Scores:
        """Read the tables that `evaluate` wrote."""
        labels = read_label_table(per_label)
        names, unseen = tuple(labels["label"]), tuple(labels["label"][~labels["seen"]])
        image_ids = tuple(pd.read_parquet(scores, columns=["image_id"])["image_id"].unique())
        values = read_scores(scores, image_ids, names)
        return cls(image_ids, names, unseen, values[OURS.method], values[ANNOTATIONS])

    def is_like(self, other: Scores) -> bool:
        """Check that both are scores of the same photos, with the same annotations and labels."""
        mine, theirs = ((one.image_ids, one.names, one.unseen) for one in (self, other))
        return mine == theirs and torch.equal(self.targets, other.targets)

    def estimates(self, keys: Sequence[str], resamples: Resamples) -> list[Estimate]:
        """Return metrics such as `zsl/map` and `gzsl/f1_at_3` on the resamples."""
        return [estimate(self._measure(key), *self._columns(key), resamples) for key in keys]

    def _measure(self, key: str) -> Callable[[Tensor, Tensor, Resamples], Tensor]:
        k = key.partition("f1_at_")[2]
        return partial(f1_at_k, k=int(k)) if k else mean_average_precision

    def _columns(self, key: str) -> tuple[Tensor, Tensor]:
        chosen = self.unseen if key.startswith("zsl/") else self.names
        places = [self.names.index(name) for name in chosen]
        return self.scores[None, :, places], self.targets[:, places].long()


@dataclass(frozen=True)
class Comparison:
    """Executions, the first of which is what the rest is compared with."""

    executions: tuple[Execution, ...]
    experiment_id: str

    def settings(self) -> Table:
        """Return the settings that are not the same in all runs."""
        table = Table("setting", *(one.name for one in self.executions), title="Settings that differ")
        for key in sorted(set().union(*(one.params for one in self.executions))):
            values = [one.params.get(key, "-") for one in self.executions]
            if len(set(values)) > 1:
                table.add_row(key, *values)
        if not table.row_count:
            table.caption = "none"
        return table

    def figures(self) -> Table:
        """Return mAP and F1 on the test photos in percent, each later run also minus the first."""
        first, *later = self.executions
        reason = self._why_unpaired()
        table = Table("test split, %", first.name, title=None if reason else "95 % intervals over the test photos")
        for one in later:
            table.add_column(one.name)
            table.add_column("minus first")
        keys = {title: key for title, key in columns(first.metrics).items() if self._is_measured(key)}
        cells = (self._plain if reason else self._with_intervals)(list(keys.values()))
        for title, row in zip(keys, cells, strict=True):
            table.add_row(title, *row)
        table.caption = f"no intervals: {reason}" if reason else "minus first: on the same photos, pair by pair"
        return table

    def page(self) -> str:
        """Return the address of MLflow's page with parallel coordinates of these runs, without the host."""
        ids = json.dumps([one.run.info.run_id for one in self.executions], separators=(",", ":"))
        experiments = json.dumps([self.experiment_id])
        return f"#/compare-runs?runs={quote(ids)}&experiments={quote(experiments)}"

    def _is_measured(self, key: str) -> bool:
        return any(key in one.metrics for one in self.executions)

    def _why_unpaired(self) -> str:
        first = self.executions[0]
        for one in self.executions:
            if one.scores is None or first.scores is None:
                return f"{one.name if one.scores is None else first.name} has no readable scores"
            if not one.scores.is_like(first.scores):
                return f"{one.name} has other test photos, annotations or labels than {first.name}"
        return ""

    def _plain(self, keys: Sequence[str]) -> Iterator[list[str]]:
        first, *later = self.executions
        for key in keys:
            cells = [percent(first.metrics.get(key))]
            for one in later:
                cells += [percent(one.metrics.get(key)), _difference(one, first, key)]
            yield cells

    def _with_intervals(self, keys: Sequence[str]) -> Iterator[list[str]]:
        scores = [one.scores for one in self.executions if one.scores]
        resamples = draw_resamples(1, len(scores[0].image_ids), NUM_RESAMPLES, seed=0)
        first, *later = (one.estimates(keys, resamples) for one in scores)
        for row, before in enumerate(first):
            cells = [_figure(before)]
            for one in later:
                cells += [_figure(one[row]), _figure(difference(one[row], before), signed=True)]
            yield cells


def _figure(measured: Estimate, signed: bool = False) -> str:
    return figure_in_percent(interval_or_value(measured.value, measured.replicates), signed)


def _difference(one: Execution, first: Execution, key: str) -> str:
    if key not in one.metrics or key not in first.metrics:
        return "-"
    return percent(one.metrics[key] - first.metrics[key], signed=True)


def compare(texts: Sequence[str], root: Path) -> Comparison:
    """Find executions by name, by id or by its first characters; without any, take the latest two with results.

    Raises:
        ValueError: there are no two such runs, or a text fits none or several.
    """
    if not is_set_up(root):
        raise ValueError(
            f"There are no runs in {root}: `make run` makes one; MLFLOW_TRACKING_URI names a database elsewhere."
        )
    client, experiment_id = connect(root)
    known = executions(client, experiment_id)
    evaluated = [one for one in known if "zsl/map" in one.metrics]
    if not texts and len(evaluated) < 2:
        raise ValueError(
            f"{count(len(evaluated), 'run')} with results in MLflow: two are needed. `make run` makes one."
        )
    chosen = [find(text, known) for text in texts] or evaluated[1::-1]
    if len({one.run.info.run_id for one in chosen}) < max(len(chosen), 2):
        raise ValueError(f"{' '.join(texts)}: name two or more different runs")
    return Comparison(tuple(chosen), experiment_id)


def executions(client: MlflowClient, experiment_id: str) -> list[Execution]:
    """Return all executions, latest first."""
    found: list[Execution] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], f"tags.`{EXECUTION_TAG}` LIKE '%'", page_token=token)
        found += map(Execution, page)
        token = page.token
        if not token:
            return found


def find(text: str, known: Sequence[Execution]) -> Execution:
    """Return the execution of this name or id.

    Raises:
        ValueError: there is none, or there are several.
    """
    fitting = [one for one in known if text in (one.name, one.run.info.run_id)]
    if not fitting and len(text) >= SHORTEST_ID:
        fitting = [one for one in known if one.run.info.run_id.startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    shown = fitting or known
    names = ", ".join(f"{one.name} ({one.run.info.run_id[:8]})" for one in shown[:NUM_NAMED])
    more = f" and {len(shown) - NUM_NAMED} others" if len(shown) > NUM_NAMED else ""
    choices = f"choose {names}{more}" if names else "`make run` makes one"
    raise ValueError(f"{text!r} is {len(fitting) or 'not the name of any'} of the runs: {choices}")
