"""The command `tailorset`: choose settings, see where things stand, see the results. Stages are run by DVC."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tailorset.inputs import has_changed
from tailorset.params import Params, contradictions, flatten, load_params, read_yaml
from tailorset.plugins import unknown
from tailorset.records import LabelSpace

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
console = Console(soft_wrap=True, highlight=False)

PARAMS = Path("params.yaml")
PRESETS = Path("presets")
REPORTS = Path("reports")
ROWS = {"raw CLIP": "baseline/clip/", "normalised CLIP": "baseline/clip_normalised/", "ours": ""}
NOTHING_ANNOTATED = "No test photograph is annotated: nothing was measured. Look at reports/card/index.html"
READ_AGAIN = "dvc repro --force --single-item prepare_dataset"
COLUMNS = {"ZSL mAP": "zsl/map", "ZSL F1@3": "zsl/f1_at_3", "GZSL mAP": "gzsl/map", "GZSL F1@3": "gzsl/f1_at_3"}


@app.command()
def use(
    preset: Annotated[str, typer.Argument(help="Name of a file in presets/, without .yaml")],
    force: Annotated[bool, typer.Option(help="Overwrite a params.yaml that was edited")] = False,
) -> None:
    """Make a preset the params.yaml."""
    if not PRESETS.is_dir():
        _stop(f"There is no {PRESETS}/ here: go to the folder of a tailorset project.")
    presets = {path.stem: path.read_bytes() for path in sorted(PRESETS.glob("*.yaml"))}
    if preset not in presets:
        _stop(unknown("preset", preset, presets))
    if not force and PARAMS.exists() and PARAMS.read_bytes() not in presets.values():
        _stop(f"{PARAMS} was edited and would be lost. Keep it elsewhere, or say: tailorset use {preset} --force")
    PARAMS.write_bytes(presets[preset])
    console.print(f"{PARAMS} is now the preset {preset}. Next: make run")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the label file and the preset to write")],
    labels: Annotated[str, typer.Option(help='Labels to generate images for, e.g. "mug, lamp, sofa"; three at least')],
    images: Annotated[Path, typer.Option(help="Folder of your photographs")],
    seen: Annotated[str, typer.Option(help="Further labels, which your photographs are annotated for")] = "",
    annotations: Annotated[str, typer.Option(help=".csv, COCO .json, or `folders`; else a table to fill")] = "",
    force: Annotated[bool, typer.Option(help="Overwrite files of that name")] = False,
) -> None:
    """Write the files for labels and photographs of your own, and say what is found and what is missing."""
    from tailorset.starter import split_names, start

    if not PRESETS.is_dir():
        _stop(f"There is no {PRESETS}/ here: go to the folder of a tailorset project.")
    try:
        lines = start(name, split_names(labels), split_names(seen), images, annotations, force)
    except ValueError as error:
        _stop(str(error))
    console.print("\n".join(lines), markup=False)


@app.command()
def status() -> None:
    """What is up to date, what is missing, what was measured and registered last."""
    params, space = _settings()
    counts = f"{len(space.seen)} seen, {len(space.unseen)} unseen"
    console.print(f"labels      {space.name}: {counts} ({params.label_space})")
    console.print(f"weights     {_weights_line()}")
    console.print(f"stages      {_stages_line()}")
    console.print(f"results     {_results_line()}")
    console.print(f"registered  {_registry_line(params.register_model.model_name)}")


@app.command()
def doctor() -> None:
    """Examine machine, packages, settings, data and weights: each finding with its remedy; fails where a run would."""
    from tailorset.doctor import examine

    failed = False
    for finding in examine():
        mark = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "error": "[red]ERROR[/]"}[finding.status]
        console.print(f"{mark:<20}  {finding.subject:<9}", end="")
        console.print(finding.text, markup=False)
        if finding.status != "ok":
            console.print(f"{'':<20}{finding.remedy}", markup=False)
        failed |= finding.status == "error"
    if failed:
        raise typer.Exit(1)


@app.command()
def check() -> None:
    """Whether params.yaml, label file and photographs can be used as they are; runs nothing."""
    params, _ = _settings()
    if has_changed(Path.cwd(), params.prepare_dataset.config):
        _stop(f"Photographs or annotations have changed since they were read: {READ_AGAIN}")


@app.command()
def results() -> None:
    """The measured results: ours beside raw and normalised CLIP, acceptance before and after tuning, quotas."""
    metrics = _metrics(REPORTS / "metrics.json")
    if not metrics:
        _stop("Nothing was evaluated yet: make run")
    console.print(results_table(metrics) if "zsl/map" in metrics else NOTHING_ANNOTATED)
    console.print(acceptance_table(metrics))
    console.print(_quota_line())
    model = read_yaml(PARAMS)["register_model"]["model_name"]
    console.print(_registry_line(model))
    console.print(f"Next: `make ui` compares runs; {REPORTS}/ holds plots and tables")


def results_table(metrics: dict[str, float]) -> Table:
    """One row a method, one column a measure, in percent."""
    table = Table("test split, %", title="Labels nobody annotated (ZSL), and together with the annotated ones (GZSL)")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for row, prefix in ROWS.items():
        table.add_row(row, *(_percent(metrics.get(prefix + key)) for key in COLUMNS.values()))
    return table


def acceptance_table(metrics: dict[str, float]) -> Table:
    """Share of generated images accepted before and after the text encoder was tuned."""
    table = Table("images accepted, %", title="Tuning the text encoder (the judge never steers it)")
    for column in ("before", "after"):
        table.add_column(column, justify="right")
    for clip in ("discriminator", "judge"):
        table.add_row(clip, *(_percent(metrics.get(f"acceptance/{when}/{clip}")) for when in ("before", "after")))
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _quota_line() -> str:
    metrics = _metrics(REPORTS / "generate_images" / "metrics.json")
    if "generate/under_quota" not in metrics:
        return "Quota: nothing was generated yet."
    short = int(metrics["generate/under_quota"])
    missed = f"NOT reached by {short} unseen labels (see {REPORTS}/generate_images/plots/)"
    reached = missed if short else "reached by every unseen label"
    return f"Quota of kept images: {reached}, {int(metrics['generate/images'])} images drawn."


def _results_line() -> str:
    metrics = _metrics(REPORTS / "metrics.json")
    if not metrics:
        return "none yet: make run"
    return ", ".join(f"{column} {_percent(metrics.get(key))} %" for column, key in COLUMNS.items())


def _weights_line() -> str:
    folders = list(_model_folders(flatten(read_yaml(PARAMS)).values()))
    missing = [str(folder) for folder in folders if not any(folder.glob("*"))]
    return f"MISSING: {', '.join(missing)}: git checkout them" if missing else f"{len(folders)} local models present"


def _model_folders(values: Iterable[Any]) -> Iterator[Path]:
    """The folders among the values of params.yaml: open_clip's local-dir:FOLDER, and paths below models/."""
    for value in map(str, values):
        if value.startswith(("local-dir:", "models/")):
            yield Path(value.removeprefix("local-dir:"))


def _stages_line() -> str:
    command = [sys.executable, "-m", "dvc", "status", "--json", "dvc.yaml"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return f"unknown: {(answer.stderr.strip().splitlines() or ['dvc status failed'])[-1]}"
    stale = list(json.loads(answer.stdout))
    return f"to run (make run): {', '.join(stale)}" if stale else "all up to date"


def _registry_line(model: str) -> str:
    from mlflow.exceptions import MlflowException

    from tailorset.tracking import connect

    remedy = f"no models:/{model}@challenger; register one: dvc repro --force --single-item register_model"
    if "MLFLOW_TRACKING_URI" not in os.environ and not Path("mlflow.db").exists():
        return remedy  # asking would create the database
    try:
        version = connect(Path.cwd())[0].get_model_version_by_alias(model, "challenger")
    except MlflowException as error:
        return f"{remedy} ({error.error_code})"
    commit = version.tags.get("git.commit", "unknown")
    return f"models:/{model}@challenger is version {version.version}, made from commit {commit[:8]}"


def _metrics(path: Path) -> dict[str, float]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _settings() -> tuple[Params, LabelSpace]:
    params: Params = _or_stop(load_params, PARAMS)
    space: LabelSpace = _or_stop(LabelSpace.load, params.label_space)
    for problem in contradictions(params, space):
        _stop(problem)
    return params, space


def _or_stop(load: Any, path: Path) -> Any:
    try:
        return load(path)
    except ValueError as error:
        _stop(str(error))


def _stop(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(message, markup=False)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
