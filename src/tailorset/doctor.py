"""What stands in the way of a run on this machine: each finding with its remedy, before anything expensive starts."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open

from tailorset import integrity
from tailorset.annotations import find_photos, read_truths
from tailorset.availability import delivery_problem, downloads_allowed
from tailorset.clip import OpenClip
from tailorset.contradictions import contradictions
from tailorset.datasets import folder
from tailorset.hub import NamedModel, cache_of, cached_commit, departure, lacking
from tailorset.params import Params, load_params, named_models
from tailorset.records import LabelSpace
from tailorset.storage import open_storage

GIB = 1 << 30
CONNECT_SECONDS = 10
MIN_FREE_DISK, MIN_FREE_MEMORY = 5 * GIB, 3 * GIB  # of the toybox: 1 GB of products, 2.4 GB at most
PINS = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)
Status = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    status: Status
    subject: str
    text: str
    remedy: str = ""


def examine(root: Path = Path()) -> Iterator[Finding]:
    """Everything that can be known without running a stage, the cheapest first."""
    yield from packages(root / "constraints.txt")
    yield from machine(root)
    try:
        params = load_params(root / "params.yaml")
    except ValueError as error:
        yield Finding("error", "settings", str(error), "correct params.yaml, or `tailorset use toybox`")
        return
    yield Finding("ok", "settings", "params.yaml is valid")
    yield from labels(root / params.label_space, params)
    yield from device(params)
    yield from data_paths(params.prepare_dataset.config)
    yield from place(params)
    yield from weights(params)


def packages(constraints: Path) -> Iterator[Finding]:
    """Installed versions against those that the project is tested with."""
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
    """Free memory and disk."""
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(root).free
    status: Status = "ok" if memory >= MIN_FREE_MEMORY else "warning"
    yield Finding(
        status, "memory", f"{memory / GIB:.1f} GiB free", "close other programs; 3 GiB are needed for the toybox"
    )
    status = "ok" if disk >= MIN_FREE_DISK else "warning"
    yield Finding(
        status, "disk", f"{disk / GIB:.1f} GiB free", "`dvc gc --workspace` drops old products; 5 GiB are needed"
    )


def labels(path: Path, params: Params) -> Iterator[Finding]:
    """The label file, and settings that do not suit it."""
    try:
        space = LabelSpace.load(path)
    except ValueError as error:
        yield Finding("error", "labels", str(error), "correct the file, or name another one in label_space")
        return
    yield Finding("ok", "labels", f"{space.name}: {len(space.seen)} seen, {len(space.unseen)} unseen")
    for problem in contradictions(params, space):
        yield Finding("error", "labels", problem, "correct it in params.yaml or in the label file")
    yield from own_photos(params, space, whole=True)


def own_photos(params: Params, space: LabelSpace, whole: bool = False) -> Iterator[Finding]:
    """What is wrong with annotations of own photographs; `whole`: with the photographs too, which reads them all."""
    config = params.prepare_dataset.config
    if not isinstance(config, folder.Config):
        return
    try:
        if whole:
            folder.build(config, space, params.seed)
        else:
            read_truths(config.annotations, config.images, find_photos(config.images), space)
    except ValueError as error:
        yield Finding("error", "data", str(error), "see docs/data-sets.md")


def device(params: Params) -> Iterator[Finding]:
    """The device that will be used, and settings that do not suit it."""
    import torch

    yield from compiler(params, torch.cuda.is_available() and params.device != "cpu")
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
    """What generator.compile needs: Triton takes $CC, gcc or clang."""
    if not getattr(params.generator.config, "compile", False):
        return
    if not is_gpu:
        text = "generator.compile: on a CPU it needs g++ and takes longer than it saves"
        yield Finding("warning", "device", text, "set it to false")
    elif not any(map(shutil.which, [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"])):
        text = "generator.compile needs a C compiler, and there is none"
        yield Finding("error", "device", text, "install gcc, or set it to false")


def data_paths(config: BaseModel) -> Iterator[Finding]:
    """Files and folders that the data set reads."""
    for key, value in config:
        if isinstance(value, Path):
            remedy = "" if value.exists() else f"correct prepare_dataset.{key}"
            yield Finding("ok" if value.exists() else "error", "data", f"prepare_dataset.{key}: {value}", remedy)


def place(params: Params) -> Iterator[Finding]:
    """Whether shards can be written where params.yaml wants them, and what another engine needs."""
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
    """Whether Ray is installed and something listens at the address; `auto` is known to Ray alone."""
    if find_spec("ray") is None:
        remedy = "`pip install --constraint constraints.txt --editable '.[ray]'`, or set engine.name to local"
        return Finding("error", "engine", "Ray is not installed", remedy)
    try:
        dial(address)
    except (OSError, ValueError) as error:
        return no_cluster(address, str(error))
    return Finding("ok", "engine", f"ray, {address}")


def no_cluster(address: str, reason: str) -> Finding:
    """What to say where no cluster answers."""
    remedy = "start its head by `ray start --head`, give HOST:PORT as it says, or set engine.name to local"
    return Finding("error", "engine", f"engine.address {address!r}: no Ray cluster answers there ({reason})", remedy)


def dial(address: str) -> None:
    """Connect to HOST:PORT and hang up, which Ray itself would try for minutes; `auto` is left to it.

    Raises:
        OSError: nobody listens there.
        ValueError: this is no HOST:PORT.
    """
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def weights(params: Params, whole: bool = True) -> Iterator[Finding]:
    """Whether every model that params.yaml names is there and, which reads all of it, whole."""
    for key, model in named_models(params):
        if problem := isinstance(model, OpenClip) and model.name_problem():
            yield Finding("error", "weights", f"{key}: {problem}", "correct it in params.yaml")
        elif model.folder:
            yield local_weights(key, model.folder, whole)
        else:
            yield hub_weights(key, model, whole)


def local_weights(key: str, folder: Path, whole: bool = True) -> Finding:
    """A folder's safetensors files opened, for one that was cut off does not open; `whole`: against its checksums."""
    files = sorted(folder.rglob("*.safetensors"))
    remedy = "restore it (`git checkout -- models/foundation`, `dvc checkout`) or name another model"
    if not files:
        return Finding("error", "weights", f"{key}: {folder} holds no safetensors file", remedy)
    try:
        for file in files:
            with safe_open(file, framework="np") as opened:
                opened.keys()
        if not whole:
            return Finding("ok", "weights", f"{key}: {folder}")
        integrity.check(folder)
    except (OSError, SafetensorError, ValueError) as error:
        return Finding("error", "weights", f"{key}: {folder} is damaged ({error})", remedy)
    total = hashlib.sha256("".join(map(integrity.file_digest, files)).encode())
    size = sum(file.stat().st_size for file in files) / (1 << 20)
    return Finding("ok", "weights", f"{key}: {folder}, {size:,.0f} MiB, sha256 {total.hexdigest()[:12]}")


def hub_weights(key: str, model: NamedModel, whole: bool = True) -> Finding:
    """Files of a hub model in the cache; `whole`: each large one has the sha256 that is its name."""
    repository = str(model.repository)
    commit = cached_commit(repository, model.revision)
    wanted = f"{model.title} at revision {model.revision}" if model.revision else f"{model.title}, the latest"
    snapshot = cache_of(repository) / "snapshots" / str(commit)
    names = [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*")] if commit else []
    if lacking(model.needed_files, names):
        return not_downloaded(f"{key}: {wanted}", model)
    blobs = cache_of(repository).joinpath("blobs").glob("*")
    files = [file for file in blobs if re.fullmatch(r"[0-9a-f]{64}", file.name)]
    for file in files if whole else ():
        if integrity.file_digest(file) != file.name:
            return Finding("error", "weights", f"{key}: {file} is damaged", "delete it and download the model again")
    size = sum(file.stat().st_size for file in files) / GIB
    text = f"{key}: {wanted} (commit {str(commit)[:12]}), {size:.1f} GiB{', whole' * whole}"
    if gone := departure(repository):
        return Finding("warning", "weights", f"{text}; {gone}", "keep a copy of it: nobody else can download it")
    return Finding("ok", "weights", text)


def not_downloaded(title: str, model: NamedModel) -> Finding:
    """Whether a hub model that is not here can be fetched: asked of the hub where downloads are allowed."""
    gone = departure(str(model.repository))
    if not downloads_allowed():
        remedy = gone or "`HF_HUB_OFFLINE=0 make run` downloads it; if a folder is meant, there is none of this name"
        return Finding("error", "weights", f"{title}, is not downloaded", remedy)
    problem, remedy = delivery_problem(model)
    if problem:
        return Finding("error", "weights", f"{title}, is not downloaded, and {problem}", remedy)
    return Finding("ok", "weights", f"{title}; the hub has it, and it is downloaded on first use")
