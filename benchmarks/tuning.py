"""Cost and benefit of each way of tuning: `python benchmarks/tuning.py`, about 30 minutes on two CPU cores.

The gradient of the finished image through the last K of the steps that generate_images takes, for several K, and the
setting of params.yaml; with and without gradient checkpointing, in this process: seconds per sample in alternation, the
peak of memory, gradient norms. Then each way tunes on the same prompts and seeds, and held-out prompts are judged by
the discriminator, the judge and the toybox's oracle. Models, prompts and all other settings are those of params.yaml;
write the prompts first (`dvc repro write_prompts`). `--only-own` measures the setting of params.yaml alone.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pandas as pd
import torch
from timing import FOREVER, interleaved, peak_bytes
from torch import Tensor
from tqdm import tqdm

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.clip.scorer import LabelScorer, acceptance
from tailorset.compute.device import resolve_device, use_tf32
from tailorset.compute.memory import ShrinkingBatches
from tailorset.generators import TunableGenerator
from tailorset.generators.stable_diffusion import StableDiffusion
from tailorset.messages import MIB
from tailorset.project.layout import PROMPTS
from tailorset.project.params import Params, load_params
from tailorset.records import LabelSpace, Prompt, read_prompts, requested_mask
from tailorset.toybox.oracle import Oracle, load_oracle
from tailorset.tuning.held_out import draw_images, split_prompts
from tailorset.tuning.tuner import TUNING_MEMORY_REMEDY, Tuner, new_tuner

GOALS = {"seconds per sample": 3.0, "seconds to equal oracle precision": 5.0}


class Way(NamedTuple):
    """Source of an update's gradient: see tune_text_encoder in params.yaml."""

    backprop_steps: int
    num_inference_steps: int
    stop_after: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        stop = ", after {}-{}".format(*self.stop_after) if self.stop_after else ""
        return f"K={self.backprop_steps} of {self.num_inference_steps}{stop}"


@dataclass(frozen=True)
class UpdateCost:
    """Cost of an update of one way; seconds per sample, bytes at the peak of one update."""

    way: str
    checkpointing: bool
    seconds: float
    peak_bytes: int
    grad_norm: float


@dataclass(frozen=True)
class CurvePoint:
    """Shares of held-out images that show the requested labels, to each observer, after `samples` tuning samples.

    oracle_one, oracle_more: the oracle's, of the images of prompts that request one label, and of several; NaN: none.
    """

    way: str
    samples: int
    discriminator: float
    judge: float
    oracle: float
    oracle_one: float
    oracle_more: float


class TuningBenchmark:
    """The models and prompts of params.yaml."""

    def __init__(self, params: Params, images_per_prompt: int) -> None:
        self.params, self.block = params, params.tune_text_encoder
        use_tf32()
        self.device = resolve_device(params.device)
        self.label_space = LabelSpace.load(params.label_space)
        self.scorers = {
            role: LabelScorer(clip, self.label_space.unseen, params.clip.prompt_template)
            for role, clip in params.clip.load(self.device).items()
        }
        self.oracle = load_oracle().to(self.device)
        prompts = read_prompts(PROMPTS)
        self.tuning, held_out = split_prompts(prompts, self.block.held_out_prompts, params.seed)
        self.held_out = held_out * images_per_prompt

    def tuner(self, way: Way, checkpointing: bool) -> Tuner:
        generator: StableDiffusion = self.params.generator.build(self.device)
        others = {"gradient_checkpointing": checkpointing, "num_updates": FOREVER, **way._asdict()}
        config, steering = self.block.model_copy(update=others), self.scorers["discriminator"]
        return new_tuner(generator, steering, self.tuning, config, self.label_space, self.params.seed)

    def costs(self, ways: Sequence[Way], repetitions: int) -> list[UpdateCost]:
        """Every way with and without checkpointing, in alternation."""
        sides = {(way.name, on): self.tuner(way, on).updates() for way in ways for on in (False, True)}
        norms: dict[tuple[str, bool], list[float]] = {side: [] for side in sides}
        work = {side: self._update(updates, norms[side]) for side, updates in sides.items()}
        seconds = interleaved({str(side): step for side, step in work.items()}, self.device, repetitions)
        return [
            UpdateCost(
                *side, seconds[str(side)] / self.block.batch_size, peak_bytes(step, self.device), median(norms[side])
            )
            for side, step in work.items()
        ]

    def curve(self, way: Way, num_updates: int, every: int) -> Iterator[CurvePoint]:
        """Tune from the untuned text encoder on, and evaluate the held-out prompts at intervals."""
        tuner = self.tuner(way, checkpointing=False)
        updates = tuner.updates()
        for done in tqdm(range(num_updates + 1), desc=f"tuning, {way.name}", unit="update"):
            if done % every == 0:
                yield self._point(tuner.generator, way, done * self.block.batch_size)
            if done < num_updates:
                next(updates)

    @staticmethod
    def _update(updates: Iterator[Any], norms: list[float]) -> Callable[[], None]:
        return lambda: norms.append(next(updates).grad_norm)

    def _point(self, generator: TunableGenerator, way: Way, samples: int) -> CurvePoint:
        batches = ShrinkingBatches(self.params.generate_images.batch_size, "drawing", TUNING_MEMORY_REMEDY)
        steps = self.params.generate_images.num_inference_steps
        images = torch.cat(list(draw_images(generator, self.held_out, self.params.seed, steps, batches)))
        shares = {role: acceptance(scorer, images, self.held_out) for role, scorer in self.scorers.items()}
        right = is_right(self.oracle, images, self.held_out)
        single = torch.tensor([len(prompt.labels) == 1 for prompt in self.held_out])
        truth = (float(part.double().mean()) for part in (right, right[single], right[~single]))
        return CurvePoint(way.name, samples, shares["discriminator"], shares["judge"], *truth)


def is_right(oracle: Oracle, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """(N,) bool, on the CPU: whether the oracle sees every requested label in images (N, 3, H, W)."""
    requested = torch.from_numpy(requested_mask([prompt.labels for prompt in prompts], oracle.labels))
    return (oracle.sees(images, oracle.labels).cpu() | ~requested).all(1)


def with_seconds(points: Sequence[CurvePoint], costs: Sequence[UpdateCost]) -> pd.DataFrame:
    """The curves, with the seconds of tuning at the measured cost of their way without checkpointing."""
    per_sample = {cost.way: cost.seconds for cost in costs if not cost.checkpointing}
    table = pd.DataFrame([asdict(point) for point in points])
    return table.assign(seconds=table["samples"] * table["way"].map(per_sample))


def seconds_to_equal(curves: pd.DataFrame, full: str) -> dict[str, float | None]:
    """Seconds after which each way is as good to the oracle as full back-propagation at its best; None: never.

    None for all when full back-propagation never beats the untuned text encoder: there is nothing to equal.
    """
    whole = curves[curves["way"] == full]
    target = whole["oracle"].max()
    if target <= whole["oracle"].iloc[0]:
        return dict.fromkeys(curves["way"].unique().tolist())
    reached = curves[curves["oracle"] >= target].groupby("way")["seconds"].min()
    return {way: float(reached[way]) if way in reached else None for way in curves["way"].unique()}


def ratios(costs: Sequence[UpdateCost], equal: dict[str, float | None], full: str) -> list[dict[str, Any]]:
    """Ratios of the cost of all steps, with checkpointing (the published way) and without, to that of each way."""
    spent, seconds = equal[full], {(cost.way, cost.checkpointing): cost.seconds for cost in costs}
    return [
        {
            "way": way,
            "per_sample_vs_published": seconds[full, True] / seconds[way, False],
            "per_sample_vs_full": seconds[full, False] / seconds[way, False],
            "to_equal_oracle_vs_full": spent / own if own and spent else None,
        }
        for way, own in equal.items()
    ]


def report(costs: Sequence[UpdateCost], curves: pd.DataFrame, against_full: Sequence[dict[str, Any]]) -> str:
    table = pd.DataFrame([asdict(cost) for cost in costs])
    table = table.assign(seconds=table["seconds"].round(4), peak_MiB=(table["peak_bytes"] / MIB).round(1))
    sections = [
        "Cost of one sample\n" + table.drop(columns="peak_bytes").to_string(index=False, float_format="%.4f"),
        "Held-out prompts, by compute\n" + curves.to_string(index=False, float_format="%.3f"),
    ]
    if against_full:
        goals = "; ".join(f"{name}: {goal:.0f} times less" for name, goal in GOALS.items())
        cheaper = pd.DataFrame(against_full).to_string(index=False, float_format="%.2f", na_rep="not reached")
        sections.append(f"Times cheaper than all steps (goals: {goals})\n{cheaper}")
    return "\n\n".join(sections)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--updates", type=int, default=60, help="tuning updates of each way (default 60)")
    parser.add_argument("--evaluate-every", type=int, default=20, help="updates between measurements (default 20)")
    parser.add_argument("--images-per-prompt", type=int, default=2, help="of each held-out prompt (default 2)")
    parser.add_argument(
        "--backprop-steps",
        type=int,
        nargs="+",
        help="each K of the finished image; all steps and the way of params.yaml are always measured",
    )
    parser.add_argument("--only-own", action="store_true", help="measure the way of params.yaml only")
    parser.add_argument("--output", type=Path, default=Path("reports/tuning_bench.json"))
    options = parser.parse_args(arguments)

    bench = TuningBenchmark(load_params(), options.images_per_prompt)
    block, steps = bench.block, bench.params.generate_images.num_inference_steps
    own = Way(block.backprop_steps, block.num_inference_steps, block.stop_after)
    full = Way(steps, steps)
    others = [*sorted({Way(k, steps) for k in options.backprop_steps or (1, 2, 5) if k < steps}), full]
    ways = [own] if options.only_own else others if own in others else [own, *others]
    costs = bench.costs(ways, options.repetitions)
    points = [point for way in ways for point in bench.curve(way, options.updates, options.evaluate_every)]
    curves = with_seconds(points, costs)
    against_full = ratios(costs, seconds_to_equal(curves, full.name), full.name) if full in ways else []
    print(report(costs, curves, against_full))
    content = {
        "costs": [asdict(cost) for cost in costs],
        "curves": curves.to_dict("records"),
        "against_full": against_full,
        "settings": block.model_dump()
        | {"num_images": len(bench.held_out), "device": str(bench.device), "threads": torch.get_num_threads()}
        | {"torch": torch.__version__, "machine": platform.machine()},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
