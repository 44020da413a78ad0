"""Cost of scheduling and scoring for many labels and images: `python benchmarks/scaling.py`, a few minutes.

generate_images' own planner, scorer and shards, with a generator that returns blank images at once. Each size runs in
its own process. Prompts are capped at the number of images (write_prompts.max_prompts), as pairs outnumber them.
The plot goes to docs/pictures/scaling.png, the figures to reports/scaling.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.compute.device import resolve_device, use_tf32
from tailorset.generation.engine import LocalEngine, Shelf, generate_shards
from tailorset.generation.quota import QuotaPlanner
from tailorset.generation.report import Tally
from tailorset.generation.shard_store import ShardStore
from tailorset.generation.studio import Studio
from tailorset.messages import MIB
from tailorset.project.params import Params, load_params
from tailorset.prompts.writer import write_prompts
from tailorset.records import LabelSpace

LABELS = (6, 20, 81, 300, 1006)
IMAGES_PER_LABEL = (10, 20)
PICTURE = Path("docs/pictures/scaling.png")


@dataclass(frozen=True)
class ScalingRun:
    """One run. seconds: of scheduling, scoring, storing; peak_bytes: beyond models and prompts."""

    labels: int
    images_per_label: int
    images: int
    prompt_seconds: float
    seconds: float
    peak_bytes: int


class Blank:
    """A generator that draws nothing."""

    def __init__(self, image_px: int) -> None:
        self.image = torch.full((1, 3, image_px, image_px), 0.5)

    def sample(self, prompts: list[str], *_: Any, **__: Any) -> Tensor:
        return self.image.expand(len(prompts), -1, -1, -1)


def measure(num_labels: int, images_per_label: int) -> ScalingRun:
    """Write prompts from the template and fill the quotas of this number of unseen labels; every image is kept."""
    torch.set_num_threads(1)
    params = load_params()
    labels = [{"name": f"thing {number}", "seen": False} for number in range(num_labels)]
    space = LabelSpace.model_validate({"name": "scaling", "labels": labels})
    num_images = num_labels * images_per_label
    studio = blank_studio(params, space)
    start = time.perf_counter()
    recipe = {"prompts_per_pair": 1, "max_prompts": num_images, "min_words": 10, "max_attempts": 0}
    config = params.write_prompts.model_copy(update=recipe)
    prompts = next(write_prompts(lambda dialogues, seeds: [], space, config, params.seed, batch_size=1)).prompts
    prompt_seconds = time.perf_counter() - start
    before = peak_memory()
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        store = ShardStore(Path(folder))
        planner = QuotaPlanner(space.unseen, prompts, images_per_label, num_images)
        shelf = Shelf(space.unseen, 0.0, keep=store.keep)
        tally = Tally(space.unseen, 0.0)
        for shard in generate_shards(LocalEngine(studio), planner, params.generate_images.shard_size, shelf):
            tally.add(shard)
        store.assemble(tally.shards, Path(folder, "product"))
    seconds = time.perf_counter() - start
    return ScalingRun(num_labels, images_per_label, len(tally), prompt_seconds, seconds, peak_memory() - before)


def blank_studio(params: Params, space: LabelSpace) -> Studio:
    use_tf32()
    device, block = resolve_device(params.device), params.generate_images
    config: Any = params.generator.config
    discriminator, judge = (clip.load(device) for clip in (params.clip.discriminator, params.clip.judge))
    template, seed, size = params.clip.prompt_template, params.seed, block.batch_size
    return Studio(Blank(config.image_px), discriminator, judge, space.unseen, template, seed, 1, size)


def peak_memory() -> int:
    """Bytes of this process at its largest."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def plot(runs: Sequence[ScalingRun], path: Path) -> None:
    """Time and memory over labels, one line for each number of images per label."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = {
        "milliseconds an image": lambda run: 1e3 * run.seconds / run.images,
        "seconds in all": lambda run: run.seconds,
        "MiB in addition to models and prompts": lambda run: run.peak_bytes / MIB,
    }
    for axis, (title, value) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for per_label in sorted({run.images_per_label for run in runs}):
            own = [run for run in runs if run.images_per_label == per_label]
            axis.plot([run.labels for run in own], [value(run) for run in own], "o-", label=f"{per_label} a label")
        axis.set(xlabel="labels", title=title, xscale="log", ylim=(0, None))
        axis.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=LABELS)
    parser.add_argument("--images-per-label", type=int, nargs="+", default=IMAGES_PER_LABEL)
    parser.add_argument("--output", type=Path, default=Path("reports/scaling.json"))
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args(arguments)
    cases = [(labels, per_label) for per_label in options.images_per_label for labels in options.labels]
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        running = [pool.submit(measure, *case) for case in cases]
        runs = [future.result() for future in tqdm(running, unit="size")]
    print(f"{'labels':>8}{'images':>8}{'prompts':>10}{'the rest':>10}{'an image':>10}{'memory':>10}")
    for run in runs:
        print(
            f"{run.labels:>8}{run.images:>8}{run.prompt_seconds:>8.1f} s{run.seconds:>8.1f} s"
            f"{1e3 * run.seconds / run.images:>7.1f} ms{run.peak_bytes / MIB:>6.0f} MiB"
        )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps([asdict(run) for run in runs], indent=2) + "\n", encoding="utf-8")
    plot(runs, options.picture)


if __name__ == "__main__":
    main()
