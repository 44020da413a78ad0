"""Cost of each way to allocate the budget of generate_images: images drawn for the same quota of kept ones.

Draws a pool of candidates once (resumable), then replays every allocation on it, each with the same seeds. A seed
shuffles the images of a prompt; a replay that needs more of a prompt than the pool has uses some again (`repeats`).
Needs the products of `dvc repro generate_images`, or at least those of the stages before it.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pool import candidates
from scipy.optimize import linprog
from tqdm import tqdm

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.clip.scorer import passes
from tailorset.clip.settings import ROLES
from tailorset.generation.allocation import Allocator, DrawCounts, Thompson, build
from tailorset.generation.quota import Draw, QuotaPlanner
from tailorset.project.layout import PROMPTS
from tailorset.project.params import Params, load_params
from tailorset.records import LabelSpace, Prompt, read_prompts
from tailorset.seeding import numpy_rng

BASELINE = "uniform"


@dataclass(frozen=True)
class Pool:
    """prompt_id -> (N, 2) bool: each image shows all requested labels, by discriminator and by judge."""

    shown: dict[str, np.ndarray]

    @classmethod
    def of(cls, rows: pd.DataFrame, unseen: Sequence[str], threshold: float) -> Pool:
        records = rows.to_dict("records")
        shown = np.stack([passes(records, unseen, threshold, role) for role in ROLES], axis=1)
        return cls({key: shown[places] for key, places in rows.groupby("prompt_id").indices.items()})

    def outcome(self, draw: Draw, seed: int) -> np.ndarray:
        """(2,) bool, of the image that is this draw's under `seed`; a prompt's images come shuffled, repeatedly."""
        shown = self.shown[draw.prompt.prompt_id]
        lap, place = divmod(draw.index, len(shown))
        return shown[numpy_rng(seed, draw.prompt.prompt_id, lap).permutation(len(shown))[place]]


def replay(planner: QuotaPlanner, pool: Pool, seed: int) -> tuple[list[Draw], np.ndarray, int]:
    """All draws, (N, 2) passed by discriminator and judge, and the number of rounds."""
    draws: list[Draw] = []
    outcomes: list[np.ndarray] = []
    num_rounds = 0
    while planned := planner.plan_round():
        shown = np.stack([pool.outcome(draw, seed) for draw in planned])
        planner.record(planned, shown[:, 0])
        draws, outcomes, num_rounds = draws + planned, [*outcomes, shown], num_rounds + 1
    return draws, np.concatenate(outcomes), num_rounds


def figures(planner: QuotaPlanner, pool: Pool, draws: Sequence[Draw], shown: np.ndarray) -> dict[str, float]:
    """Cost of a replay, and properties of the kept images."""
    kept = [draw for draw, passed in zip(draws, shown[:, 0], strict=True) if passed]
    useful = sum(min(count, planner.quotas[label]) for label, count in planner.kept.items())
    pairs = pd.Series([draw.prompt.labels for draw in kept])
    in_company, judged = pairs.map(len).gt(1), shown[shown[:, 0], 1]
    return {
        "drawn": len(draws),
        "kept": len(kept),
        "drawn_per_kept": len(draws) / len(kept),
        "drawn_per_label_image": len(draws) / useful,
        "under_quota": len(planner.under_quota),
        "prompts": len({draw.prompt.prompt_id for draw in kept}),
        "pairs": pairs.nunique(),
        "largest_pair": float(pairs.value_counts(normalize=True).iloc[0]),
        "in_company": float(in_company.mean()),
        "judge_precision": float(judged.mean()),
        "judge_precision_alone": float(pd.Series(judged)[~in_company].mean()),
        "judge_precision_in_company": float(pd.Series(judged)[in_company].mean()),
        "judged_right_per_drawn": float(shown.all(1).mean()),
        "repeats": float(np.mean([draw.index >= len(pool.shown[draw.prompt.prompt_id]) for draw in draws])),
    }


def allocations(params: Params, seed: int, shares: Sequence[float]) -> Iterator[tuple[str, Allocator]]:
    """Each by name; thompson once for every gain and cap on a pair."""
    config = params.generate_images.allocation
    for name in (BASELINE, "turns"):
        yield name, build(config.model_copy(update={"name": name}), seed)
    for gain, share in itertools.product(("images", "labels"), shares):
        chosen = {"name": "thompson", "gain": gain, "max_share_per_pair": share}
        yield f"{gain}, pair <= {share:g}", build(config.model_copy(update=chosen), seed)


def compare(
    params: Params, prompts: Sequence[Prompt], pool: Pool, budget: int, seeds: int, shares: Sequence[float]
) -> pd.DataFrame:
    """One row for each allocation and seed."""
    settings, unseen = params.generate_images, LabelSpace.load(params.label_space).unseen
    rows: list[dict[str, Any]] = []
    for seed in tqdm(range(seeds), desc="replaying", unit="seed"):
        for name, allocator in allocations(params, seed, shares):
            planner = QuotaPlanner(unseen, prompts, settings.images_per_label, budget, allocator, settings.weakness)
            draws, shown, num_rounds = replay(planner, pool, seed)
            kept = {f"kept/{label}": count for label, count in planner.kept.items()}
            rows.append({"allocation": name, "seed": seed, "rounds": num_rounds, **kept})
            rows[-1] |= figures(planner, pool, draws, shown)
    return pd.DataFrame(rows)


def fewest_draws(pool: Pool, prompts: Sequence[Prompt], params: Params, max_share_per_pair: float) -> float:
    """Draws that would fill the quotas if every prompt's rate in the pool were known beforehand.

    A linear programme over draws per prompt, under the caps of `Thompson`; no allocation does better on average. Rates
    of few images flatter the best prompts, so the true bound is higher.

    Raises: ValueError if the caps leave no solution.
    """
    settings, unseen = params.generate_images, LabelSpace.load(params.label_space).unseen
    counts = DrawCounts.of(prompts, unseen)
    rates = np.array([pool.shown[prompt.prompt_id][:, 0].mean() for prompt in prompts])
    quota = np.array([settings.images_per_label * settings.weakness.get(label, 1) for label in unseen])
    capped = settings.allocation.model_copy(update={"max_share_per_pair": max_share_per_pair})
    caps = Thompson(capped, params.seed).remaining(counts, quota, np.ones(len(prompts), dtype=bool))
    of_pair = counts.pair == np.arange(len(counts.pair_requested))[:, None]  # (R, P)
    rows = np.concatenate([counts.requested.T * -rates, np.diag(rates), of_pair * rates])
    solution = linprog(np.ones(len(prompts)), A_ub=rows, b_ub=np.concatenate([-quota, *caps]))
    if not solution.success:
        raise ValueError(f"quotas out of reach with max_share_per_pair={max_share_per_pair}: {solution.message}")
    return float(solution.fun)


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, and the ratio of images drawn by the baseline with the same seed."""
    by_seed = results.pivot(index="seed", columns="allocation")
    means = results.drop(columns="seed").groupby("allocation", sort=False).mean()
    for name in ("drawn", "drawn_per_kept", "drawn_per_label_image"):
        ratio = by_seed[name].rdiv(by_seed[name][BASELINE], axis=0)  # (seeds, allocations)
        means[f"fewer_{name}"], means[f"fewer_{name}_std"] = ratio.mean(), ratio.std()
    return means


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images-per-prompt", type=int, default=20, help="size of the pool (default 20)")
    parser.add_argument("--seeds", type=int, default=10, help="replays of each allocation (default 10)")
    parser.add_argument("--budget", type=int, default=6000, help="instead of max_images: enough for all (default 6000)")
    parser.add_argument("--max-share-per-pair", type=float, nargs="+", default=[0.2, 0.25, 0.5, 1.0])
    parser.add_argument("--output", type=Path, default=Path("reports/allocation.json"))
    options = parser.parse_args(arguments)

    params, prompts = load_params(), read_prompts(PROMPTS)
    rows = candidates(params, prompts, options.images_per_prompt)
    pool = Pool.of(rows, LabelSpace.load(params.label_space).unseen, params.generate_images.quota_threshold)
    results = compare(params, prompts, pool, options.budget, options.seeds, options.max_share_per_pair)
    print(summary(results).T.to_string(float_format="{:.3g}".format))
    bounds = {share: fewest_draws(pool, prompts, params, share) for share in options.max_share_per_pair}
    print(
        *(f"with all rates known, pair <= {share:g}: {draws:.0f} drawn" for share, draws in bounds.items()),
        sep="\n",
    )
    settings = {**params.generate_images.model_dump(), "budget": options.budget}
    replays = results.to_dict("records")
    content = {
        "settings": settings,
        "pool_images": len(rows),
        "fewest_draws": bounds,
        "replays": replays,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
