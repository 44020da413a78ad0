"""Checks before a run, each with a remedy."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil
from pydantic import BaseModel

from tailorset.commands.availability import model_finding, server_finding
from tailorset.commands.checkout import checkout, foreign_queue
from tailorset.commands.findings import Finding, Status
from tailorset.commands.further_photos import further_photos
from tailorset.commands.licences import licence_findings
from tailorset.commands.reviewing import verdict_findings
from tailorset.datasets import DatasetConfig, folder
from tailorset.datasets.reading.annotations import read_truths
from tailorset.llms.parts.served import ServedModel
from tailorset.messages import GIB
from tailorset.project.busy import BUSY_CORES, busiest, cores_used_by_others
from tailorset.project.checks import contradictions
from tailorset.project.cluster import dial, no_cluster
from tailorset.project.layout import PROMPTS
from tailorset.project.params import Params, load_params, named_models
from tailorset.project.tracking import tracking_gaps
from tailorset.project.tracking_store import MisplacedError, TrackingError, database_of, settle, tracking_uri
from tailorset.records import LabelSpace
from tailorset.storage.location import open_storage
from tailorset.storage.photo_files import find_photos

MIN_FREE_DISK, MIN_FREE_MEMORY = 5 * GIB, 3 * GIB  # of the toybox: 1 GB of products, 2.4 GB at most
WRITTEN = (".", "data", "models", "reports", ".dvc", ".work")
PINS = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def examine(root: Path = Path()) -> Iterator[Finding]:
    """Check everything that can be checked without running a stage, the cheapest first."""
    yield from packages(root / "constraints.txt")
    yield from machine(root)
    yield from cores()
    yield from writable(root)
    yield from tracking(root)
    yield from records(root)
    try:
        params = load_params(root / "params.yaml")
    except ValueError as error:
        yield Finding("error", "settings", str(error), "correct params.yaml, or `tailorset use toybox --force`")
        return
    yield Finding("ok", "settings", "params.yaml is valid")
    yield from repository(root, params)
    yield from labels(root / params.label_space, params)
    yield from device(params)
    yield from data_paths(params.prepare_dataset.config)
    yield from further_photos(params, whole=True)
    yield from place(params)
    yield from weights(params)
    yield from licence_findings(params)


def quick(params: Params, space: LabelSpace) -> Iterator[Finding]:
    """Check in seconds what would end a run of these settings in the project here."""
    yield from writable(Path())
    yield from tracking(Path())
    yield from repository(Path(), params)
    yield from device(params)
    yield from data_paths(params.prepare_dataset.config)
    yield from further_photos(params)
    yield from place(params)
    yield from weights(params, whole=False)
    yield from licence_findings(params)
    yield from verdict_findings(space)
    yield from own_photos(params, space)


def packages(constraints: Path) -> Iterator[Finding]:
    """Compare installed versions with those that the project is tested with."""
    yield Finding(
        "ok" if sys.version_info >= (3, 11) else "error", "python", sys.version.split()[0], "install 3.11 or later"
    )
    pins = dict(PINS.findall(constraints.read_text(encoding="utf-8"))) if constraints.exists() else {}
    others, absent = [], []
    for name, pinned in pins.items():
        try:
            installed = version(name).partition("+")[0]  # a build for another device is the same version
        except PackageNotFoundError:
            absent.append(name)
        else:
            others += [f"{name} {installed} instead of {pinned}"] if installed != pinned.partition("+")[0] else []
    if others:
        yield Finding("warning", "packages", ", ".join(others), "`make setup` installs the tested versions")
    elif absent:
        yield Finding("warning", "packages", f"not installed: {', '.join(absent)}", "`make setup`")
    else:
        yield Finding("ok", "packages", f"{len(pins)} as tested")


def machine(root: Path) -> Iterator[Finding]:
    """Check free memory and disk."""
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(root).free
    status: Status = "ok" if memory >= MIN_FREE_MEMORY else "warning"
    yield Finding(
        status, "memory", f"{memory / GIB:.1f} GiB free", "close other programs; 3 GiB are needed for the toybox"
    )
    status = "ok" if disk >= MIN_FREE_DISK else "warning"
    yield Finding(
        status, "disk", f"{disk / GIB:.1f} GiB free", "`dvc gc --workspace` drops old products; 5 GiB are needed"
    )


def cores() -> Iterator[Finding]:
    """Find other programs that would slow a run."""
    if (used := cores_used_by_others(1)) >= BUSY_CORES:
        text = f"other programs use {used:.1f} of {psutil.cpu_count()} cores, most of all {busiest(1)}"
        yield Finding("warning", "cores", text, "end them, or a run takes longer")


def writable(root: Path) -> Iterator[Finding]:
    """Check that the folders a run writes to can be written to."""
    for path in (root / name for name in WRITTEN):
        if not path.is_dir():
            continue
        try:
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            text = f"{path.resolve()} cannot be written to ({error.strerror})"
            yield Finding("error", "folder", text, "change its permissions, or copy the project elsewhere")


def tracking(root: Path) -> Iterator[Finding]:
    """Check that a local database of MLflow can be used here if it was copied or moved."""
    database = database_of(tracking_uri(root))
    try:
        if database:
            settle(database)
    except TrackingError as error:  # a run goes on without a database, and would write to one of another folder
        status: Status = "error" if isinstance(error, MisplacedError) else "warning"
        yield Finding(status, "tracking", error.text, error.remedy)


def records(root: Path) -> Iterator[Finding]:
    """List what keeps, or kept, runs out of MLflow."""
    for gap in tracking_gaps(root):
        yield Finding("warning", "tracking", gap.text, gap.remedy)


def repository(root: Path, params: Params) -> Iterator[Finding]:
    """Check that git tracks the project and the files that settings name."""
    folders = [model.folder for _, model in named_models(params) if model.folder]
    yield from checkout(root, [params.label_space, *folders])
    yield from foreign_queue(root)


def labels(path: Path, params: Params) -> Iterator[Finding]:
    """Check the label file, and settings against it."""
    try:
        space = LabelSpace.load(path)
    except ValueError as error:
        yield Finding("error", "labels", str(error), "correct the file, or name another one in label_space")
        return
    yield Finding("ok", "labels", f"{space.name}: {len(space.seen)} seen, {len(space.unseen)} unseen")
    for problem in contradictions(params, space):
        yield Finding("error", "labels", problem, "correct it in params.yaml or in the label file")
    yield from verdict_findings(space)
    yield from own_photos(params, space, whole=True)


def own_photos(params: Params, space: LabelSpace, whole: bool = False) -> Iterator[Finding]:
    """Check the annotations of the user's own photos; `whole`: also the photos, which reads them all."""
    config = params.prepare_dataset.config
    if not isinstance(config, folder.Config):
        return
    try:
        found = find_photos(config.images)
        if note := found.unread_note():
            yield Finding("warning", "data", note, "make them readable, or remove them")
        if whole:
            folder.build(config, space, params.seed)
        else:
            truths = read_truths(config.annotations, config.images, found, space)
            folder.check_truths(truths, config, space)
            for text in folder.few_held_out(truths, config, space, params.train_classifier.held_out_share):
                remedy = "annotate more photos, or raise train_classifier.held_out_share"
                yield Finding("warning", "data", text, remedy)
    except ValueError as error:
        yield Finding("error", "data", str(error), "see docs/data-sets.md")


def device(params: Params) -> Iterator[Finding]:
    """Check the device that will be used, and settings against it."""
    import torch

    is_gpu = torch.cuda.is_available() and params.device != "cpu"
    yield from compiler(params, is_gpu)
    if getattr(params.generator.config, "offload", "none") != "none" and not is_gpu:
        text = "generator.offload keeps weights in the CPU's memory for a GPU, and none is used"
        yield Finding("error", "device", text, "set it to none")
    if not torch.cuda.is_available():
        if params.device == "cuda":
            yield Finding(
                "error", "device", "device is cuda, and torch sees no GPU", "set device to auto, or install a driver"
            )
        elif getattr(params.generator.config, "dtype", "float32") != "float32":
            remedy = "set generator.dtype to float32, or use a GPU"
            yield Finding("warning", "device", "CPU: half precision is slower than float32 there", remedy)
        else:
            yield Finding("ok", "device", f"CPU, {psutil.cpu_count(logical=False)} cores")
        return
    properties = torch.cuda.get_device_properties(0)
    yield Finding("ok", "device", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB")
    num_gpus = torch.cuda.device_count()
    if params.device == "cpu":
        yield Finding("warning", "device", "device is cpu, and there is a GPU", "set device to auto")
    elif params.num_processes > num_gpus:
        remedy = f"choose 1 to {num_gpus}, the GPUs there are"
        yield Finding("error", "device", f"num_processes is {params.num_processes}", remedy)


def compiler(params: Params, is_gpu: bool) -> Iterator[Finding]:
    """Check for the compiler that generator.compile needs: Triton takes $CC, gcc or clang."""
    if not getattr(params.generator.config, "compile", False):
        return
    if not is_gpu:
        text = "generator.compile: on a CPU it needs g++ and takes longer than it saves"
        yield Finding("warning", "device", text, "set it to false")
    elif not any(map(shutil.which, [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"])):
        text = "generator.compile needs a C compiler, and there is none"
        yield Finding("error", "device", text, "install gcc, or set it to false")


def data_paths(config: BaseModel) -> Iterator[Finding]:
    """Check files and folders that the data set reads."""
    remedy = "docs/data-sets.md and docs/guides/coco-nus-wide.md tell what belongs there"
    named = {key: value for key, value in config if isinstance(value, Path)}
    for key, path in named.items():
        text = f"prepare_dataset.{key}: {path}"
        if path.exists():
            yield Finding("ok", "data", text)
        else:
            yield Finding("error", "data", f"{text} does not exist", f"correct prepare_dataset.{key}; {remedy}")
    if isinstance(config, DatasetConfig) and all(path.exists() for path in named.values()):
        for path in config.needed:
            if not path.exists():
                yield Finding("error", "data", f"{path} does not exist", remedy)


def place(params: Params) -> Iterator[Finding]:
    """Check that shards can be written to the storage of params.yaml, and the needs of another engine."""
    if params.storage is not None:
        try:
            open_storage(params.storage)
        except ValueError as error:
            yield Finding("error", "storage", str(error), "correct storage in params.yaml")
        else:
            yield Finding("ok", "storage", params.storage)
    if params.engine.name == "ray":
        yield cluster(params.engine.address)


def cluster(address: str) -> Finding:
    """Check that Ray is installed and something listens at the address; only Ray can resolve `auto`."""
    if find_spec("ray") is None:
        remedy = "`pip install --constraint constraints.txt --editable '.[ray]'`, or set engine.name to local"
        return Finding("error", "engine", "Ray is not installed", remedy)
    try:
        dial(address)
    except (OSError, ValueError) as error:
        return Finding("error", "engine", *no_cluster(address, str(error)))
    return Finding("ok", "engine", f"ray, {address}")


def weights(params: Params, whole: bool = True) -> Iterator[Finding]:
    """Check every model that params.yaml names; `whole` also reads all of it."""
    for key, model in named_models(params):
        yield model_finding(key, model, whole)
    llm = params.write_prompts.llm.config
    if isinstance(llm, ServedModel):
        yield server_finding("write_prompts.llm", llm, is_needed=not PROMPTS.exists())
