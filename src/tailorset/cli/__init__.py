"""The command `tailorset`: choose settings, check and run them, see the results. DVC runs the stages."""

from __future__ import annotations

import webbrowser
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

try:
    import typer
except ModuleNotFoundError:
    raise SystemExit(
        "The command tailorset needs more than the library: pip install 'tailorset[train]', or 'tailorset[serve]' to"
        " serve, predict and export only"
    ) from None

from tailorset.cli.data import export_data, import_data
from tailorset.cli.models import add_label, export, params_and_labels, predict, promote, rollback, serve
from tailorset.cli.review import annotate, review
from tailorset.commands.licences import SUBJECT as LICENCES
from tailorset.commands.run import run
from tailorset.commands.status import (
    acceptance_table,
    notes_on_training,
    other_label_file,
    quota_line,
    registry_line,
    results_line,
    results_table,
    stages_line,
    stored_metrics,
    was_edited,
    weights_line,
)
from tailorset.commands.terminal import console, or_stop, stop, stopping
from tailorset.datasets.reading.changes import has_changed
from tailorset.project.checks import contradictions
from tailorset.project.layout import PARAMS, REPORTS
from tailorset.project.params import Params, flatten, load_params, read_yaml
from tailorset.project.presets import FOLDER, preset_names, preset_text
from tailorset.project.tracking import tracking_gaps
from tailorset.project.tracking_store import TrackingError
from tailorset.project.unlogged import gaps
from tailorset.records import LabelSpace

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
NOTHING_ANNOTATED = "No test photo is annotated: nothing was measured. Look at reports/card/index.html"
COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
READ_AGAIN = "dvc repro --force --single-item prepare_dataset"


app.command()(run)


@app.command()
def use(
    preset: Annotated[str, typer.Argument(help="Name of a file in presets/, without .yaml")],
    force: Annotated[bool, typer.Option(help="Overwrite a params.yaml that was edited")] = False,
) -> None:
    """Write params.yaml from a preset."""
    _need_presets()
    text = or_stop(preset_text, preset)
    if not force and PARAMS.exists() and PARAMS.read_bytes() not in _preset_texts():
        stop(f"{PARAMS} was edited and would be lost. Keep a copy, or overwrite it: tailorset use {preset} --force")
    PARAMS.write_text(text, encoding="utf-8")
    console.print(f"{PARAMS} is now the preset {preset}. Next: make run")


def _need_presets() -> None:
    if not FOLDER.is_dir():
        stop(f"There is no {FOLDER}/ here: go to the folder of a tailorset project.")


def _preset_texts() -> Iterator[bytes]:
    """The settings of every preset that is valid."""
    for name in preset_names():
        with suppress(ValueError):
            yield preset_text(name).encode()


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the label file and the preset to write")],
    labels: Annotated[str, typer.Option(help='Labels to generate images for, e.g. "mug, lamp, sofa"; at least three')],
    images: Annotated[Path, typer.Option(help="Folder of your photos")],
    seen: Annotated[str, typer.Option(help="Further labels, for which your photos are annotated")] = "",
    annotations: Annotated[str, typer.Option(help=".csv, COCO .json or `folders` (default: a table to fill in)")] = "",
    preset: Annotated[
        Literal["folder", "toybox"],
        typer.Option(help="toybox: also write a preset to rehearse every stage on a CPU, in minutes"),
    ] = "folder",
    force: Annotated[bool, typer.Option(help="Overwrite files of that name")] = False,
) -> None:
    """Write the files for your own labels and photos, and list what is found and what is missing."""
    from tailorset.commands.new import split_names, start

    _need_presets()
    with stopping():
        lines = start(name, split_names(labels), split_names(seen), images, annotations, force, preset == "toybox")
    console.print("\n".join(lines))


@app.command()
def status() -> None:
    """Show what is up to date, what is missing, and what was measured and registered last."""
    from tailorset.commands.sweep import failed_points

    params, space = _settings()
    counts = f"{len(space.seen)} seen, {len(space.unseen)} unseen"
    console.print(f"labels      {space.name}: {counts} ({params.label_space})")
    console.print(f"weights     {weights_line(params)}")
    console.print(f"stages      {stages_line()}")
    console.print(f"results     {or_stop(results_line, params.label_space)}")
    console.print(f"registered  {registry_line(params.model_name, params.label_space)}")
    for point, cause in failed_points():
        console.print(f"failed      the point {point}: {cause}")
    for gap in tracking_gaps(Path.cwd()):
        console.print(f"tracking    {gap}")


@app.command()
def plan(
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of this device per hour, in any currency: adds prices")
    ] = None,
) -> None:
    """Estimate what a run of params.yaml takes on this device, from a short sample of each stage."""
    from tailorset.commands.planning.page import measured_notes, notes, over_cap, plan_table
    from tailorset.commands.planning.plan import make_plan
    from tailorset.project.definition import stage_names
    from tailorset.project.running import last_durations
    from tailorset.registry.alternatives import find_alternatives

    _, space = _settings()
    with stopping():
        planned = make_plan(read_yaml(PARAMS), space, stage_names())
    console.print(plan_table(planned, last_durations(Path.cwd()), price_per_hour))
    console.print("\n".join(notes(planned, price_per_hour)))
    try:
        alternatives = find_alternatives(flatten(planned.values), Path.cwd())
        for note in measured_notes(planned, alternatives, price_per_hour):
            console.print(note)
    except TrackingError as error:
        console.print(f"Runs that were measured are left out: {error}")
    if reason := over_cap(planned):
        stop(reason)


@app.command()
def doctor() -> None:
    """Examine machine, packages, settings, data and weights, each with a remedy. Fails if a run would fail."""
    from tailorset.commands.doctor import examine

    failed = False
    for finding in examine():
        mark = "ERROR" if finding.status == "error" else finding.status
        console.print(f"{mark:<9}", style=COLOURS[finding.status], end="")
        console.print(f"{finding.subject:<9}{finding.text}")
        if finding.status != "ok":
            console.print(f"{'':<18}{finding.remedy}")
        failed |= finding.status == "error"
    if failed:
        raise typer.Exit(1)


@app.command()
def check(
    set_param: Annotated[
        list[str], typer.Option("--set-param", "-S", help="KEY=VALUE,... as in `dvc exp run`: check each point")
    ] = [],  # noqa: B006 - typer makes a new one each time
) -> None:
    """Check settings, labels, models and photos. Takes seconds and runs nothing."""
    from tailorset.commands.doctor import quick
    from tailorset.commands.sweep import point_problems
    from tailorset.project.definition import stage_definition
    from tailorset.project.layout import REAL

    params, space = _settings()
    findings = list(quick(params, space))
    for finding in findings:
        if finding.status == "warning":
            console.print(f"warning: {finding.sentence}")
    if errors := [finding.sentence for finding in findings if finding.status == "error"]:
        stop("\n".join(errors))
    settings = stage_definition("prepare_dataset")["params"]
    block = params.prepare_dataset
    if has_changed(Path.cwd(), settings, REAL, block.config, block):
        stop(f"Photos or annotations have changed since they were read: {READ_AGAIN}")
    counts = f"{len(space.seen)} seen and {len(space.unseen)} unseen labels"
    console.print(f"ok: {space.name}, {counts}; settings, models and photos can be used.")
    for finding in findings:
        if finding.status == "ok" and finding.subject == LICENCES:
            console.print(finding.text)
    with stopping():
        problems = list(point_problems(set_param)) if set_param else []
    for point, problem in problems:
        console.print(f"{'NOT ok' if problem else 'ok'}: {point}{f': {problem}' if problem else ''}")
    if any(problem for _, problem in problems):
        raise typer.Exit(1)


@app.command()
def results() -> None:
    """Show the results: ours next to CLIP without training, acceptance before and after tuning, quotas."""
    params = or_stop(load_params, PARAMS)
    metrics = or_stop(stored_metrics)
    if not metrics:
        stop("Nothing has been evaluated yet: make run")
    if other := or_stop(other_label_file, params.label_space):
        stop(f"{REPORTS}/ holds results of {other}, and params.yaml names {params.label_space}: make run")
    if or_stop(was_edited, params.label_space):
        console.print(f"Measured before {params.label_space} was edited: make run")
    console.print(results_table(metrics) if "zsl/map" in metrics else NOTHING_ANNOTATED)
    for note in or_stop(notes_on_training, metrics):
        console.print(note)
    if tuning := acceptance_table(metrics):
        console.print(tuning)
    console.print(or_stop(quota_line))
    console.print(registry_line(params.model_name, params.label_space))
    console.print(f"Next: `make ui` compares runs; {REPORTS}/ holds plots and tables")
    for gap in gaps(Path.cwd()):
        console.print(str(gap), style="red")


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Names or ids of runs; the first is compared with the rest")] = [],  # noqa: B006 - typer makes a new one each time
    open_page: Annotated[bool, typer.Option("--open", help="Open MLflow's page of these runs in the browser")] = False,
    host: Annotated[str, typer.Option(help="Address of MLflow's pages (default: the server's, or `make ui`'s)")] = "",
) -> None:
    """Show which settings of runs differ, and their results with intervals. Without names: the latest two."""
    from tailorset.project.mlflow_pages import pages_host
    from tailorset.registry.comparison import compare as compare_runs

    comparison = or_stop(compare_runs, runs, Path.cwd())
    console.print(comparison.settings())
    console.print(comparison.figures())
    page = f"{host.rstrip('/') or pages_host()}/{comparison.page()}"
    console.print(f"Parallel coordinates, after `make ui`: {page}")
    if open_page and not webbrowser.open(page):
        stop("No browser could be opened: copy the address")


def _settings() -> tuple[Params, LabelSpace]:
    params, space = params_and_labels()
    if problem := next(contradictions(params, space), None):
        stop(problem)
    return params, space


for command in (serve, promote, rollback, predict, export, export_data, import_data, annotate, review, add_label):
    app.command()(command)
