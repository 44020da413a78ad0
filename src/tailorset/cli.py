"""The command `tailorset`: choose settings, see where things stand, see the results. Stages are run by DVC."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from tailorset.contradictions import contradictions
from tailorset.inputs import has_changed
from tailorset.params import Params, load_params, read_yaml
from tailorset.plugins import unknown
from tailorset.records import LabelSpace
from tailorset.standing import (
    REPORTS,
    acceptance_table,
    quota_line,
    read_metrics,
    registry_line,
    results_line,
    results_table,
    stages_line,
    weights_line,
)

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
console = Console(soft_wrap=True, highlight=False)

PARAMS = Path("params.yaml")
PRESETS = Path("presets")
NOTHING_ANNOTATED = "No test photograph is annotated: nothing was measured. Look at reports/card/index.html"
READ_AGAIN = "dvc repro --force --single-item prepare_dataset"


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
    console.print(f"weights     {weights_line(params)}")
    console.print(f"stages      {stages_line()}")
    console.print(f"results     {_or_stop(results_line)}")
    console.print(f"registered  {registry_line(params.register_model.model_name)}")


@app.command()
def plan() -> None:
    """What a run of params.yaml will take on this device, stage by stage, measured by a short sample of each."""
    from tailorset.planning.page import notes, over_cap, plan_table
    from tailorset.planning.plan import make_plan
    from tailorset.tracking import last_durations

    _, space = _settings()
    try:
        planned = make_plan(read_yaml(PARAMS), space, list(read_yaml("dvc.yaml")["stages"]))
    except ValueError as error:
        _stop(str(error))
    console.print(plan_table(planned, last_durations(Path.cwd())))
    console.print("\n".join(notes(planned)), markup=False)
    if reason := over_cap(planned):
        _stop(reason)


@app.command()
def doctor() -> None:
    """Examine machine, packages, settings, data and weights: each finding with its remedy; fails where a run would."""
    from tailorset.doctor import examine

    failed = False
    for finding in examine():
        mark = {"ok": "[green]ok     [/]", "warning": "[yellow]warning[/]", "error": "[red]ERROR  [/]"}[finding.status]
        console.print(f"{mark}  {finding.subject:<9}", end="")
        console.print(finding.text, markup=False)
        if finding.status != "ok":
            console.print(f"{'':<18}{finding.remedy}", markup=False)
        failed |= finding.status == "error"
    if failed:
        raise typer.Exit(1)


@app.command()
def check() -> None:
    """Whether params.yaml, label file, models and photographs can be used as they are; runs nothing, is soon done."""
    from tailorset.doctor import quick

    params, space = _settings()
    num_warnings = 0
    for finding in quick(params, space):
        if finding.status == "error":
            _stop(f"{finding.text}: {finding.remedy}")
        num_warnings += finding.status == "warning"
    if has_changed(Path.cwd(), params.prepare_dataset.config):
        _stop(f"Photographs or annotations have changed since they were read: {READ_AGAIN}")
    counts = f"{len(space.seen)} seen and {len(space.unseen)} unseen labels"
    more = f" {num_warnings} warnings: tailorset doctor" if num_warnings else ""
    console.print(f"ok: {space.name}, {counts}; settings, models and photographs can be used.{more}", markup=False)


@app.command()
def results() -> None:
    """The measured results: ours beside raw and normalised CLIP, acceptance before and after tuning, quotas."""
    metrics = _or_stop(read_metrics, REPORTS / "metrics.json")
    if not metrics:
        _stop("Nothing was evaluated yet: make run")
    console.print(results_table(metrics) if "zsl/map" in metrics else NOTHING_ANNOTATED)
    console.print(acceptance_table(metrics))
    console.print(quota_line())
    console.print(registry_line(_model_name()))
    console.print(f"Next: `make ui` compares runs; {REPORTS}/ holds plots and tables")


@app.command()
def serve(
    model: Annotated[str, typer.Option(help="Folder, or models:/NAME@ALIAS; else the champion of params.yaml")] = "",
    challenger: Annotated[str, typer.Option(help="Second model to compare with: models:/tailorset@challenger")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on; others than 127.0.0.1 let others in")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one")] = 8000,
    max_batch: Annotated[int, typer.Option(min=1, help="Photographs computed together")] = 16,
    max_wait_ms: Annotated[float, typer.Option(min=0, help="Time a batch that is not full waits for more")] = 3.0,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests let in at a time; others get a 429")] = 32,
    poll_s: Annotated[float, typer.Option(min=0.1, help="Seconds between looks for a new version")] = 5.0,
) -> None:
    """A page to drop photographs on, and an HTTP service for programs."""
    import uvicorn

    from tailorset.serving.app import create_app
    from tailorset.serving.service import DRAIN_S, Load, Service

    try:  # now, and not after the models were loaded
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        _stop(f"{host}:{port} cannot be listened on ({error.strerror}): choose another --port or --host")
    load = Load(max_batch, max_wait_ms / 1000, max_waiting)
    service = _or_stop(Service, model or _champion(), challenger or None, load, poll_s)
    console.print(service.champion.describe(), markup=False)
    uvicorn.run(
        create_app(service), host=host, port=port, access_log=False, log_level="info", server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
    )  # fmt: skip


@app.command()
def promote(
    version: Annotated[str, typer.Option(help="Number of a version to promote instead of the challenger")] = "",
    margin: Annotated[float, typer.Option(min=0, help="Points of ZSL or GZSL mAP that it may lose")] = 0.5,
    measure: Annotated[bool, typer.Option(help="Measure the champion on the test photographs in data/real")] = False,
    dry_run: Annotated[bool, typer.Option(help="Compare and try only, change nothing")] = False,
    force: Annotated[
        str, typer.Option(metavar="REASON", help="Promote whatever speaks against it; kept as a tag")
    ] = "",
) -> None:
    """Make the challenger the champion, if it is not worse on the same test photographs and answers a request."""
    from tailorset.serving.promotion import assess
    from tailorset.serving.promotion import promote as move_alias

    assessment = _or_stop(assess, _model_name(), margin, version, measure)
    console.print(assessment.table())
    for line in assessment.lines():
        console.print(line, markup=False)
    if assessment.objections and not force.strip():
        _stop("Not promoted. Register a better one, or say why all the same: tailorset promote --force REASON")
    if dry_run:
        console.print("Nothing was changed (--dry-run).")
        return
    move_alias(assessment, force.strip())
    console.print(f"models:/{assessment.challenger.name}@champion is now version {assessment.challenger.version}.")


@app.command()
def rollback(reason: Annotated[str, typer.Argument(help="Why; kept as a tag of the version that is given up")]) -> None:
    """Make the version that the champion replaced the champion again."""
    from tailorset.serving.promotion import rollback as move_alias

    champion, previous = _or_stop(move_alias, _model_name(), reason)
    console.print(f"models:/{champion.name}@champion is version {previous.version} again, no more {champion.version}.")


@app.command()
def predict(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders (nested ones too), or .tar shards")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".parquet, .csv or .jsonl")] = Path(
        "predictions.parquet"
    ),
    model: Annotated[str, typer.Option(help="Folder, or models:/NAME@ALIAS of the registry; the champion")] = "",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto = a GPU, if there is one")] = "auto",
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16, where a GPU does")] = True,
) -> None:
    """Score photographs: one row a file, with the labels it shows. What cannot be read is a row with its error.

    Exit status 0 if any could be read: a broken file among many does not undo the others.
    """
    from tailorset.device import resolve_device
    from tailorset.serving.prediction import predict_file
    from tailorset.serving.predictor import load_predictor

    predictor = _or_stop(load_predictor, model or _champion(), _or_stop(resolve_device, device), bf16)
    summary = _or_stop(predict_file, predictor, paths, output, batch_size)
    for line in summary.failures:
        console.print(line, markup=False)
    unread = f", {summary.num_failed} of them could not be read" if summary.num_failed else ""
    console.print(f"{summary.num_images} images{unread}, by {predictor.origin.title}: {output}", markup=False)


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to")] = Path("export"),
    model: Annotated[str, typer.Option(help="Folder, or models:/NAME@ALIAS of the registry; the champion")] = "",
) -> None:
    """Write the classifier as ONNX, compared with torch first, and its model card."""
    from tailorset.serving.export import export as write

    if output.exists() and not output.is_dir():
        _stop(f"{output} is a file: name a folder to write to")
    for line in _or_stop(lambda: list(write(model or _champion(), output))):
        console.print(line, markup=False)


def _settings() -> tuple[Params, LabelSpace]:
    params: Params = _or_stop(load_params, PARAMS)
    space: LabelSpace = _or_stop(LabelSpace.load, params.label_space)
    for problem in contradictions(params, space):
        _stop(problem)
    return params, space


def _model_name() -> str:
    params: Params = _or_stop(load_params, PARAMS)
    return params.register_model.model_name


def _champion() -> str:
    """What answers where no model is named."""
    return f"models:/{_model_name()}@champion"


def _or_stop(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (ValueError, OSError) as error:
        _stop(str(error))


def _stop(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(message, markup=False)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
