"""What each backprop_steps K costs and what it buys: `python benchmarks/tuning.py`, some 12 minutes on two CPU cores.

All K, with and without gradient checkpointing, in this process: seconds per sample turn about, the peak of memory,
gradient norms; then each K tunes on the same prompts and seeds, and held-out prompts are judged by the discriminator,
the judge and the toybox's oracle. Models, prompts and settings are those of params.yaml; write the prompts first
(`dvc repro write_prompts`).
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import torch
from timing import FOREVER, interleaved, peak_bytes
from torch import Tensor
from tqdm import tqdm

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.generators.stable_diffusion import StableDiffusion, build
from tailorset.out_of_memory import Batches
from tailorset.params import Params, load_params
from tailorset.records import PROMPT_COLUMNS, LabelSpace, Prompt
from tailorset.stage import PROMPTS, resolve_device
from tailorset.text_encoder import REMEDY, Scorer, Settings, Tuner, acceptance, draw, split_prompts
from tailorset.toybox.oracle import Oracle, load_oracle

ORACLE = Path("models/foundation/toybox/oracle")
GOALS = {"seconds per sample": 3.0, "seconds to equal oracle precision": 5.0}


@dataclass(frozen=True)
class Cost:
    """What an update of one K takes; seconds per sample, bytes at the peak of one update."""

    backprop_steps: int
    checkpointing: bool
    seconds: float
    peak_bytes: int
    grad_norm: float


@dataclass(frozen=True)
class Point:
    """Shares of held-out images that show what was asked for, to each observer, after `samples` tuning samples."""

    backprop_steps: int
    samples: int
    discriminator: float
    judge: float
    oracle: float


class Bench:
    """The models and prompts of params.yaml."""

    def __init__(self, params: Params, images_per_prompt: int) -> None:
        self.params, self.block = params, params.tune_text_encoder
        self.device = resolve_device(params.device)
        label_space = LabelSpace.load(params.label_space)
        self.scorers = {
            role: Scorer(model.load(self.device), label_space.unseen, template)
            for role, model, template in (
                ("discriminator", params.clip.discriminator, params.clip.prompt_template),
                ("judge", params.clip.judge, params.clip.prompt_template),
            )
        }
        self.oracle = load_oracle(ORACLE).to(self.device)
        rows = pq.read_table(PROMPTS, columns=list(PROMPT_COLUMNS)).to_pylist()
        prompts = [Prompt(**row) for row in rows]
        self.tuning, held_out = split_prompts(prompts, self.block.held_out_prompts, params.seed)
        self.held_out = held_out * images_per_prompt

    def tuner(self, backprop_steps: int, checkpointing: bool) -> Tuner:
        generator = build(self.params.generator.config, self.device)
        generator.add_adapter(self.block.lora_rank, self.block.lora_alpha, self.params.seed)
        if checkpointing:
            generator.enable_gradient_checkpointing()
        settings = Settings.of(self.block, backprop_steps=backprop_steps, num_updates=FOREVER)
        return Tuner(generator, self.scorers["discriminator"], self.tuning, settings, self.params.seed)

    def costs(self, choices: Sequence[int], repetitions: int) -> list[Cost]:
        """Every K with and without checkpointing, turn about."""
        sides = {(k, on): self.tuner(k, on).updates() for k in choices for on in (False, True)}
        norms: dict[tuple[int, bool], list[float]] = {side: [] for side in sides}
        work = {side: self._update(updates, norms[side]) for side, updates in sides.items()}
        seconds = interleaved({str(side): step for side, step in work.items()}, self.device, repetitions)
        return [
            Cost(*side, seconds[str(side)] / self.block.batch_size, peak_bytes(step, self.device), median(norms[side]))
            for side, step in work.items()
        ]

    def curve(self, backprop_steps: int, num_updates: int, every: int) -> Iterator[Point]:
        """Tune from the untuned text encoder on, and look at the held-out prompts now and then."""
        tuner = self.tuner(backprop_steps, checkpointing=False)
        updates = tuner.updates()
        for done in tqdm(range(num_updates + 1), desc=f"tuning, K = {backprop_steps}", unit="update"):
            if done % every == 0:
                yield self._point(tuner.generator, backprop_steps, done * self.block.batch_size)
            if done < num_updates:
                next(updates)

    @staticmethod
    def _update(updates: Iterator[Any], norms: list[float]) -> Callable[[], None]:
        return lambda: norms.append(next(updates).grad_norm)

    def _point(self, generator: StableDiffusion, backprop_steps: int, samples: int) -> Point:
        block = self.block
        batches = Batches(block.batch_size, "drawing", REMEDY)
        images = torch.cat(list(draw(generator, self.held_out, self.params.seed, block.num_inference_steps, batches)))
        shares = {role: acceptance(scorer, images, self.held_out) for role, scorer in self.scorers.items()}
        return Point(backprop_steps, samples, **shares, oracle=precision(self.oracle, images, self.held_out))


def precision(oracle: Oracle, images: Tensor, prompts: Sequence[Prompt]) -> float:
    """Share of images (N, 3, H, W) in which the oracle sees every requested label."""
    seen = oracle.shown(images) > 0.5
    columns = [[oracle.labels.index(label) for label in prompt.labels] for prompt in prompts]
    return sum(bool(row[wanted].all()) for row, wanted in zip(seen, columns, strict=True)) / len(prompts)


def with_seconds(points: Sequence[Point], costs: Sequence[Cost]) -> pd.DataFrame:
    """The curves, with the seconds of tuning at the measured cost of their K without checkpointing."""
    per_sample = {cost.backprop_steps: cost.seconds for cost in costs if not cost.checkpointing}
    table = pd.DataFrame([asdict(point) for point in points])
    return table.assign(seconds=table["samples"] * table["backprop_steps"].map(per_sample))


def seconds_to_equal(curves: pd.DataFrame, full: int) -> dict[int, float | None]:
    """Seconds after which each K is as good to the oracle as full back-propagation at its best; None: never.

    None for all when full back-propagation never beats the untuned text encoder: there is nothing to equal.
    """
    whole = curves[curves["backprop_steps"] == full]
    target = whole["oracle"].max()
    if target <= whole["oracle"].iloc[0]:
        return dict.fromkeys(curves["backprop_steps"].unique().tolist())
    reached = curves[curves["oracle"] >= target].groupby("backprop_steps")["seconds"].min()
    return {int(k): float(reached[k]) if k in reached else None for k in curves["backprop_steps"].unique()}


def ratios(costs: Sequence[Cost], equal: dict[int, float | None], full: int) -> list[dict[str, Any]]:
    """How many times cheaper each K is than all steps with checkpointing, the published way, and without."""
    seconds = {(cost.backprop_steps, cost.checkpointing): cost.seconds for cost in costs}
    return [
        {
            "backprop_steps": k,
            "per_sample_vs_published": seconds[full, True] / seconds[k, False],
            "per_sample_vs_full": seconds[full, False] / seconds[k, False],
            "to_equal_oracle_vs_full": equal[full] / equal[k] if equal[k] and equal[full] else None,
        }
        for k in equal
    ]


def report(costs: Sequence[Cost], curves: pd.DataFrame, against_full: Sequence[dict[str, Any]]) -> str:
    table = pd.DataFrame([asdict(cost) for cost in costs])
    table = table.assign(seconds=table["seconds"].round(4), peak_MiB=(table["peak_bytes"] / 2**20).round(1))
    goals = "; ".join(f"{name}: {goal:.0f} times less" for name, goal in GOALS.items())
    return "\n\n".join(
        [
            "Cost of one sample\n" + table.drop(columns="peak_bytes").to_string(index=False, float_format="%.4f"),
            "Held-out prompts, by compute\n" + curves.to_string(index=False, float_format="%.3f"),
            f"Times cheaper than all steps (goals: {goals})\n"
            + pd.DataFrame(against_full).to_string(index=False, float_format="%.2f", na_rep="not reached"),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--updates", type=int, default=60, help="tuning updates of each K (default 60)")
    parser.add_argument("--evaluate-every", type=int, default=20, help="updates between measurements (default 20)")
    parser.add_argument("--images-per-prompt", type=int, default=2, help="of each held-out prompt (default 2)")
    parser.add_argument("--backprop-steps", type=int, nargs="+", help="each K; all steps are always measured")
    parser.add_argument("--output", type=Path, default=Path("reports/tuning_bench.json"))
    options = parser.parse_args(arguments)

    bench = Bench(load_params(), options.images_per_prompt)
    full = bench.block.num_inference_steps
    choices = sorted({k for k in options.backprop_steps or (1, 2, 5) if k <= full} | {full})
    costs = bench.costs(choices, options.repetitions)
    points = [point for k in choices for point in bench.curve(k, options.updates, options.evaluate_every)]
    curves = with_seconds(points, costs)
    against_full = ratios(costs, seconds_to_equal(curves, full), full)
    print(report(costs, curves, against_full))
    content = {
        "costs": [asdict(cost) for cost in costs],
        "curves": curves.to_dict("records"),
        "against_full": against_full,
        "settings": bench.block.model_dump()
        | {"num_images": len(bench.held_out), "device": str(bench.device), "threads": torch.get_num_threads()}
        | {"torch": torch.__version__, "machine": platform.machine()},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
