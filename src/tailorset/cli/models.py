"""Commands for registered models: serve, promote, roll back, predict, export, add a label."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tailorset.commands.terminal import console, or_stop, stop, stopping
from tailorset.messages import count
from tailorset.project.layout import PARAMS
from tailorset.project.params import Params, load_params
from tailorset.records import LabelSpace

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MODEL = "Folder or models:/NAME@ALIAS (default: the champion of params.yaml)"


def serve(
    model: Annotated[str, typer.Option(help=MODEL)] = "",
    challenger: Annotated[str, typer.Option(help="Second model to compare with, e.g. models:/NAME@challenger")] = "",
    host: Annotated[
        str, typer.Option(help="Address to listen on; any other than 127.0.0.1 admits other machines")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 = any free port")] = 8000,
    max_batch: Annotated[int, typer.Option(min=1, help="Maximum photos per batch")] = 16,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, help="Maximum time that an incomplete batch waits for more")
    ] = 3.0,
    max_waiting: Annotated[int, typer.Option(min=1, help="Maximum concurrent requests; the rest get 429")] = 32,
    poll_s: Annotated[float, typer.Option(min=0.1, help="Seconds between checks for a new version")] = 5.0,
    backend: Annotated[
        Literal["torch", "onnx"],
        typer.Option(help="What computes scores; onnx = ONNX Runtime on the CPU"),
    ] = "torch",
) -> None:
    """Serve the champion: a page to drop photos on, and an HTTP service for programs."""
    from tailorset.serving.app import create_app
    from tailorset.serving.service import DRAIN_S, Load, Service

    check_address(host, port)  # now, and not after the models were loaded
    load = Load(max_batch, max_wait_ms / 1000, max_waiting)
    with tidy_at_sigterm():
        service = or_stop(Service, model or champion_uri(), challenger or None, load, poll_s, backend)
        console.print(service.champion.describe())
        for note in filter(None, (live.predictor.note for live in service.models)):
            console.print(note)
        run_server(create_app(service), host, port, DRAIN_S)


@contextmanager
def tidy_at_sigterm() -> Iterator[None]:
    """End with status 0 at SIGTERM, and remove temporary files: a signal alone leaves those of a model being loaded."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_address(host: str, port: int) -> None:
    """End the command if nothing can listen there."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        stop(f"{host}:{port} cannot be used ({error.strerror}): choose another --port or --host")


def run_server(app: ASGIApp, host: str, port: int, drain_s: int) -> None:
    """Serve until interrupted; requests in flight then have `drain_s` seconds."""
    import uvicorn

    from tailorset.serving.server_log import log_config

    try:
        uvicorn.run(
            app,
            host=host,
            port=port,
            access_log=False,
            log_config=log_config(),
            server_header=False,
            timeout_graceful_shutdown=drain_s,
        )
    except SystemExit as ended:
        if ended.code:
            check_address(host, port)  # another program may have taken it since the first check
        raise


def promote(
    version: Annotated[str, typer.Option(help="Version to promote instead of the challenger")] = "",
    best: Annotated[bool, typer.Option("--best", help="Promote the version with the best scores on val")] = False,
    margin: Annotated[float, typer.Option(min=0, help="Points of ZSL or GZSL mAP by which it may be worse")] = 0.5,
    measure: Annotated[bool, typer.Option(help="Measure the champion again, on the photos in data/real")] = False,
    dry_run: Annotated[bool, typer.Option(help="Compare and test only; change nothing")] = False,
    force: Annotated[
        str, typer.Option(metavar="REASON", help="Promote despite objections; the reason is kept as a tag")
    ] = "",
) -> None:
    """Make the challenger the champion if it is not worse on the same val photos and answers a request."""
    from tailorset.registry.best import rank_versions
    from tailorset.registry.promotion import assess
    from tailorset.registry.promotion import promote as move_alias

    params, space = params_and_labels()
    name = params.model_name
    if best:
        if version:
            stop("--best chooses the version itself: leave out --version")
        ranking = or_stop(rank_versions, name)
        console.print(ranking.table())
        version = str(ranking.versions[0].version)
    assessment = or_stop(assess, name, space, margin, version, measure)
    console.print(assessment.table())
    for line in assessment.lines():
        console.print(line)
    if assessment.objections and not force.strip():
        stop("Not promoted. Register a better one, or give a reason: tailorset promote --force REASON")
    if dry_run:
        console.print("Nothing was changed (--dry-run).")
        return
    move_alias(assessment, force.strip())
    console.print(f"models:/{assessment.challenger.name}@champion is now version {assessment.challenger.version}.")


def rollback(
    reason: Annotated[str, typer.Argument(help="Reason; kept as a tag of the version that is replaced")],
) -> None:
    """Make the previous champion the champion again."""
    from tailorset.registry.promotion import rollback as move_alias

    champion, previous = or_stop(move_alias, params_and_labels()[0].model_name, reason)
    console.print(
        f"models:/{champion.name}@champion is version {previous.version} again, no longer {champion.version}."
    )


def predict(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders (including nested ones) or .tar shards")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".parquet, .csv or .jsonl")] = Path(
        "predictions.parquet"
    ),
    model: Annotated[str, typer.Option(help=MODEL)] = "",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto = a GPU if there is one")] = "auto",
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16 on GPUs that support it")] = True,
) -> None:
    """Score photos: one row per file, with the labels it shows, or with the error if it cannot be read.

    The exit status is 0 if any file could be read.
    """
    from tailorset.compute.device import resolve_device
    from tailorset.inference.batch import predict_file
    from tailorset.inference.predictor import load_predictor

    predictor = or_stop(load_predictor, model or champion_uri(), or_stop(resolve_device, device), bf16)
    if predictor.note:
        console.print(predictor.note)
    summary = or_stop(predict_file, predictor, paths, output, batch_size)
    for line in summary.failures:
        console.print(line)
    unread = f", {summary.num_failed:,} of them could not be read" if summary.num_failed else ""
    console.print(f"{count(summary.num_images, 'image')}{unread}, by {predictor.origin.title}: {output}")


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to")] = Path("export"),
    model: Annotated[str, typer.Option(help=MODEL)] = "",
) -> None:
    """Export the classifier as ONNX, after a comparison with torch, with its model card."""
    from tailorset.inference.onnx import export as write

    if output.exists() and not output.is_dir():
        stop(f"{output} is a file: name a folder to write to")
    with stopping():
        for line in write(model or champion_uri(), output):
            console.print(line)


def add_label(
    names: Annotated[list[str], typer.Argument(help="Labels that the model lacks")],
    alias: Annotated[
        list[str], typer.Option(help="Wording for prompts, of a single label; the first is used, repeat for more")
    ] = [],  # noqa: B006 - typer makes a new one each time
    apart_from: Annotated[
        list[str], typer.Option(help="Label never drawn together with it, of a single label; repeat for more")
    ] = [],  # noqa: B006
    model: Annotated[str, typer.Option(help=MODEL)] = "",
) -> None:
    """Teach a trained model further labels from generated images; the scores of its other labels stay the same.

    Run the same command again after an interruption to go on.
    """
    from tailorset.commands.adding import Addition, checked_space
    from tailorset.inference.predictor import model_files, model_labels

    params = or_stop(load_params, PARAMS)
    addition = Addition(
        names=tuple(names), model=model or champion_uri(), aliases=tuple(alias), apart_from=tuple(apart_from)
    )
    with stopping(), model_files(addition.model) as (classifier, _):
        checked_space(addition, params, classifier, *model_labels(classifier))
    command = [sys.executable, "pipeline/add_label.py", addition.model_dump_json()]
    if code := subprocess.run(command, check=False).returncode:  # it has said why
        raise typer.Exit(code)


def params_and_labels() -> tuple[Params, LabelSpace]:
    """Return the settings of params.yaml and the labels that it names."""
    params = or_stop(load_params, PARAMS)
    return params, or_stop(LabelSpace.load, params.label_space)


def champion_uri() -> str:
    """Return the model that answers if none is named."""
    from tailorset.registry.promotion import check_labels

    params, space = params_and_labels()
    uri = f"models:/{params.model_name}@champion"
    or_stop(check_labels, uri, space)
    return uri
