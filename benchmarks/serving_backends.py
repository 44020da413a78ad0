"""Speed of the classifier by torch and by ONNX Runtime, alone and in `tailorset serve`, and how far scores differ.

`python benchmarks/serving_backends.py --write-docs`, ten minutes on two cores, after `make run`; uses models/classifier
and the val photos of data/real. Sides take turns, and both servers run all the time: one is idle while the other works.
int8 is timed only where no score moves by 0.01 or more.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from performance_page import store_figures
from quantised import QUANTISED
from serving_backends_page import table, write_docs
from soak_load import Expected, Reply, after, closed_loop, open_loop, throughput
from soak_server import NAME, Server, build_project, expected_scores
from timing import timed_call

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.inference.library import Model
from tailorset.inference.onnx import ONNX_FILE
from tailorset.inference.onnx_predictor import export_apart, open_session, with_session
from tailorset.inference.predictor import Predictor, model_files, open_predictor
from tailorset.inference.sources import image_sources

CPU = torch.device("cpu")
BATCH = 16  # the server's default
CLIENTS = 32
LARGEST_DIFFERENCE = 0.01  # of a score, for int8
OPTIONS = {"torch": (), "onnx": ("--backend", "onnx")}


@dataclass(frozen=True)
class Size:
    """Amounts of each measurement. seconds: of load per server; calls: of single photos per turn."""

    turns: int
    calls: int
    seconds: float


def open_sides(root: Path, work: Path, photos: Sequence[bytes]) -> dict[str, Predictor]:
    """Return predictors of version 1 of the project in `root` by name: torch, onnx, and quantised ones."""
    with contextlib.chdir(root), model_files(f"models:/{NAME}/1") as (folder, origin):

        def opened() -> Predictor:
            return open_predictor(folder, origin, CPU)

        sides, exported = {"torch": opened()}, work / ONNX_FILE
        export_apart(folder, exported, origin.title)
        sides["onnx"] = with_session(opened(), open_session(exported))
        sides["onnx, threads spin"] = with_session(opened(), open_session(exported, spinning=True))
        pixels = torch.stack([sides["torch"].pixels(photo) for photo in photos])
        for name, quantise in QUANTISED.items():
            quantise(exported, work / "int8.onnx", pixels)
            sides[name] = with_session(opened(), open_session(work / "int8.onnx"))
    return sides


def differences(sides: Mapping[str, Predictor], photos: Sequence[bytes]) -> dict[str, float]:
    """Return the largest difference of a score from torch's, by side."""
    scores = {name: Model(side).predict(photos, "score", BATCH).to_numpy() for name, side in sides.items()}
    return {name: float(abs(found - scores["torch"]).max()) for name, found in scores.items()}


def computing(sides: Mapping[str, Predictor], photos: Sequence[bytes], size: Size) -> dict[str, dict[str, float]]:
    """Return times of scores without decoding and HTTP: of single photos, and photos per second in batches."""
    pixels = {name: torch.stack([side.pixels(photo) for photo in photos[:BATCH]]) for name, side in sides.items()}
    single: dict[str, list[float]] = {name: [] for name in sides}
    together: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(size.turns + 1):  # the first one warms up
        for name, side in sides.items():
            one, batch = partial(side.look, pixels[name][:1]), partial(side.look, pixels[name])
            seconds = [timed_call(one, CPU) for _ in range(size.calls)]
            rate = len(pixels[name]) / median(timed_call(batch, CPU) for _ in range(max(1, size.calls // BATCH)))
            if turn:
                single[name] += seconds
                together[name].append(rate)
    return {name: percentiles("single", single[name]) | {"batched_per_s": median(together[name])} for name in single}


def serving(
    urls: Mapping[str, str], photos: Sequence[bytes], expected: Expected, size: Size
) -> dict[str, dict[str, float]]:
    """Return times of whole requests: of a single client, at full load, and at half of torch's capacity.

    Raises:
        RuntimeError: an answer is wrong or missing.
    """
    turn_s = size.seconds / size.turns
    alone: dict[str, list[Reply]] = {name: [] for name in urls}
    half: dict[str, list[Reply]] = {name: [] for name in urls}
    rates: dict[str, list[float]] = {name: [] for name in urls}
    for _ in range(size.turns):
        for name, url in urls.items():
            alone[name] += checked(asyncio.run(closed_loop(url, photos, 1, after(turn_s / 2))), expected)
            busy = checked(asyncio.run(closed_loop(url, photos, CLIENTS, after(turn_s / 2))), expected)
            rates[name].append(throughput(busy))
    rate = median(rates["torch"]) / 2
    for _ in range(size.turns):
        for name, url in urls.items():
            half[name] += checked(asyncio.run(open_loop(url, photos, CLIENTS, rate, turn_s)), expected)
    return {
        name: {"answers_per_s": median(rates[name]), "half_rate": rate}
        | percentiles("client", [reply.seconds for reply in alone[name]])
        | percentiles("half", [reply.seconds for reply in half[name]])
        for name in urls
    }


def checked(replies: list[Reply], expected: Expected) -> list[Reply]:
    """Return replies of which each is a correct answer."""
    faults = [reply.told() for reply in replies if reply.status != 200] + expected.faults(replies)
    if faults:
        raise RuntimeError(f"{len(faults)} of {len(replies)} answers are wrong or missing: {faults[0]}")
    return replies


def percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    p50, p99 = 1000 * np.percentile(seconds, [50, 99])
    return {f"{name}_p50_ms": float(p50), f"{name}_p99_ms": float(p99)}


def measure(models: Path, photos: Sequence[bytes], size: Size) -> dict[str, Any]:
    """Return all figures by side, and the settings they were measured with."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        root.mkdir()
        build_project(root, models)
        sides = open_sides(root, Path(folder), photos)
        moved = differences(sides, photos)
        timed = {name: side for name, side in sides.items() if moved[name] < LARGEST_DIFFERENCE}
        rows: dict[str, dict[str, float]] = {name: {"difference": moved[name]} for name in sides}
        for name, times in computing(timed, photos, size).items():
            rows[name] |= times
        expected = Expected(expected_scores(root, list(photos)))
        with contextlib.ExitStack() as stack:
            servers = {name: stack.enter_context(Server(root, *options)) for name, options in OPTIONS.items()}
            for name, times in serving({n: s.url for n, s in servers.items()}, photos, expected, size).items():
                rows[name] |= times
    settings = {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "labels": len(sides["torch"].labels),
        "image_px": sides["torch"].classifier.image_px,
        "photos": len(photos),
        "batch": min(BATCH, len(photos)),
        "clients": CLIENTS,
        "limit": LARGEST_DIFFERENCE,
    }
    return {"rows": rows, "settings": settings | asdict(size)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of classifier/")
    parser.add_argument("--photos", type=Path, nargs="+", help="files, folders or shards (default: val of data/real)")
    parser.add_argument("--num-photos", type=int, default=1000, help="at most that many")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--calls", type=int, default=200, help="single photos per turn")
    parser.add_argument("--seconds", type=float, default=60, help="of load per server and kind of load")
    parser.add_argument("--report", type=Path, default=Path("reports/serving_backends.json"))
    parser.add_argument("--write-docs", action="store_true", help="write the table of docs/performance.md")
    options = parser.parse_args(arguments)
    if not (options.models / "classifier").is_dir():
        parser.error(f"there is no {options.models / 'classifier'}: `dvc repro train_classifier`, or name --models")
    sources = image_sources(options.photos or sorted(Path("data/real/shards").glob("val-*.tar")))
    photos = [source.read() for source, _ in zip(sources, range(options.num_photos), strict=False)]
    if not photos:
        parser.error("there are no photos: `dvc repro prepare_dataset`, or name --photos")
    figures = measure(options.models, photos, Size(options.turns, options.calls, options.seconds))
    store_figures(figures, options.report)
    print(table(figures))
    if options.write_docs:
        write_docs(figures)


if __name__ == "__main__":
    main()
