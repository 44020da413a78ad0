"""Draw candidates for the unseen labels until each has its quota of images that show it, or the budget is spent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tailorset.allocation import build
from tailorset.generation import Engine, LocalEngine, Row, Shelf, generate_shards, passes
from tailorset.generation_report import outcome_table, plot_pass_rates, save_sheet
from tailorset.params import load_params
from tailorset.quota import QuotaPlanner
from tailorset.records import read_prompts
from tailorset.shard_store import ShardStore
from tailorset.stage import LORA, PROMPTS, SYNTHETIC, Stage, atomic_output, run_stage, stage_definition
from tailorset.studio import open_studio

log = logging.getLogger(__name__)


def main() -> None:
    with run_stage("generate_images", parallel=load_params().engine.name == "local") as stage:
        settings = stage.params.generate_images
        prompts = read_prompts(PROMPTS)
        allocation = build(seed=stage.params.seed, **settings.allocation.model_dump())
        quota, budget = settings.images_per_label, settings.max_images
        planner = QuotaPlanner(stage.label_space.unseen, prompts, quota, budget, allocation, settings.weakness)
        store = ShardStore(stage.shard_folder)
        rows = draw_all(stage, planner, store)
        if stage.is_main:
            with atomic_output(SYNTHETIC) as folder:
                store.assemble(rows, folder)
            report(stage, planner, rows)


def draw_all(stage: Stage, planner: QuotaPlanner, store: ShardStore) -> list[Row]:
    """Every candidate's row; shards go to `store` as they are finished."""
    settings, rows = stage.params.generate_images, []
    kept = dict.fromkeys(planner.labels, 0)
    shelf = Shelf(planner.labels, settings.quota_threshold, store.finished_rows, store.keep)
    with tqdm(total=settings.max_images, desc="generate_images (at most)", unit="image") as bar:
        engine = open_engine(stage, bar.update)
        for shard in generate_shards(engine, planner, settings.shard_size, shelf):
            if shard.samples is None:
                bar.update(len(shard.rows))
            rows += shard.rows
            for row, passed in zip(shard.rows, shard.passed, strict=True):
                for label in row["labels"]:
                    kept[label] += passed
            bar.set_postfix_str(_fewest(kept, planner.quotas))
            progress = {f"generate/kept/{label}": float(count) for label, count in kept.items()}
            stage.log_metrics(progress | {"generate/batch_size": engine.batch_size}, step=len(rows))
    return rows


def open_engine(stage: Stage, on_batch: Callable[[int], object]) -> Engine:
    """What draws: this machine's devices, or a cluster's."""
    params = stage.params
    if params.engine.name == "local":
        return LocalEngine(open_studio(params, stage.label_space, stage.device, LORA), on_batch)
    from tailorset.ray_engine import RayEngine  # an optional dependency

    files = [dep for dep in stage_definition(stage.name)["deps"] if Path(dep) not in (PROMPTS, LORA)]
    return RayEngine(params.engine.address, params, stage.label_space, LORA, files, on_batch)


def _fewest(kept: dict[str, int], quotas: dict[str, int], num_shown: int = 6) -> str:
    """The labels that have the least of their quota, for the progress bar."""
    fewest = sorted(kept, key=lambda label: kept[label] / quotas[label])[:num_shown]
    return "kept: " + ", ".join(f"{label} {kept[label]}/{quotas[label]}" for label in fewest)


def report(stage: Stage, planner: QuotaPlanner, rows: list[Row]) -> None:
    """Metrics, plots, and a warning for every label under quota."""
    unseen, threshold = planner.labels, stage.params.generate_images.quota_threshold
    judged = passes(rows, unseen, threshold, "judge")
    outcome = outcome_table(planner, rows, judged)
    stage.save_metrics(
        {
            "generate/images": len(rows),
            "generate/under_quota": len(planner.under_quota),
            "generate/judge_pass_rate": float(judged.mean()),
            **{f"generate/pass_rate/{row.label}": row.pass_rate for row in outcome.itertuples()},
        }
    )
    outcome.to_csv(stage.plots_dir / "pass_rate.csv", index=False)
    plot_pass_rates(outcome, stage.plots_dir / "pass_rate.png")
    passed = passes(rows, unseen, threshold)
    for name, chosen in (("kept", passed), ("rejected", ~passed)):
        if chosen.any():
            save_sheet(rows, unseen, np.flatnonzero(chosen), SYNTHETIC, stage.plots_dir / f"{name}.png")
    for path in sorted(stage.plots_dir.glob("*.png")):
        stage.log_figure(path)
    for row in outcome[outcome.kept < outcome.quota].itertuples():
        log.warning("%s: %d of %d images kept (%s)", row.label, row.kept, row.quota, row.outcome)


if __name__ == "__main__":
    main()
