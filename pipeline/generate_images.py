"""Draw candidates for the unseen labels until each has its quota of images that show it, or the budget is spent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tailorset.generation.allocation import build
from tailorset.generation.engine import Engine, LocalEngine, Shelf, generate_shards
from tailorset.generation.quota import QuotaPlanner
from tailorset.generation.report import Tally, outcome_table, plot_pass_rates, save_sheet
from tailorset.generation.shard_store import ShardStore
from tailorset.progress import Bar
from tailorset.project.assembly import open_studio
from tailorset.project.definition import stage_definition
from tailorset.project.layout import LORA, PROMPTS, SYNTHETIC
from tailorset.project.params import load_params
from tailorset.project.stage import Stage, run_stage
from tailorset.records import read_prompts
from tailorset.storage.files import atomic_output

log = logging.getLogger(__name__)


def main() -> None:
    with run_stage("generate_images", parallel=load_params().engine.name == "local") as stage:
        settings = stage.params.generate_images
        prompts = read_prompts(PROMPTS)
        allocation = build(seed=stage.params.seed, **settings.allocation.model_dump())
        quota, budget = settings.images_per_label, settings.max_images
        planner = QuotaPlanner(stage.label_space.unseen, prompts, quota, budget, allocation, settings.weakness)
        store = ShardStore(stage.shard_folder)
        tally = draw_all(stage, planner, store)
        if stage.is_main:
            with atomic_output(SYNTHETIC) as folder:
                store.assemble(tally.shards, folder)
            report(stage, planner, tally)


def draw_all(stage: Stage, planner: QuotaPlanner, store: ShardStore) -> Tally:
    """What became of every candidate; shards go to `store` as they are finished."""
    settings = stage.params.generate_images
    tally = Tally(planner.labels, settings.quota_threshold)
    shelf = Shelf(planner.labels, settings.quota_threshold, store.finished_rows, store.keep)
    with Bar(total=settings.max_images, unit="image", is_whole=True) as bar:
        engine = open_engine(stage, bar.update)
        for shard in generate_shards(engine, planner, settings.shard_size, shelf):
            if shard.found:
                bar.update(len(shard.rows))
            tally.add(shard)
            bar.total = expected_images(tally, planner.quotas, settings.max_images)
            bar.set_postfix_str(_fewest(tally.kept, planner.quotas))
            progress = {f"generate/kept/{label}": float(count) for label, count in tally.kept.items()}
            stage.log_metrics(progress | {"generate/batch_size": engine.batch_size}, step=len(tally))
    return tally


def open_engine(stage: Stage, on_batch: Callable[[int], object]) -> Engine:
    """What draws: this machine's devices, or a cluster's."""
    params = stage.params
    if params.engine.name == "local":
        return LocalEngine(open_studio(params, stage.label_space, stage.device, LORA), on_batch)
    from tailorset.project.ray_engine import RayEngine  # an optional dependency

    files = [dep for dep in stage_definition(stage.name)["deps"] if Path(dep) not in (PROMPTS, LORA)]
    return RayEngine(params.engine.address, params, stage.label_space, LORA, files, on_batch)


def expected_images(tally: Tally, quotas: dict[str, int], max_images: int) -> int:
    """How many images it takes to reach every quota, if as many go on being kept."""
    kept = sum(min(tally.kept[label], quota) for label, quota in quotas.items())
    return min(max_images, round(len(tally) * sum(quotas.values()) / kept)) if kept else max_images


def _fewest(kept: dict[str, int], quotas: dict[str, int], num_shown: int = 6) -> str:
    """The labels that have the least of their quota, for the progress bar."""
    fewest = sorted(kept, key=lambda label: kept[label] / quotas[label])[:num_shown]
    return "kept: " + ", ".join(f"{label} {kept[label]}/{quotas[label]}" for label in fewest)


def report(stage: Stage, planner: QuotaPlanner, tally: Tally) -> None:
    """Metrics, plots, and a warning for every label under quota."""
    outcome = outcome_table(planner, tally)
    stage.save_metrics(
        {
            "generate/images": len(tally),
            "generate/under_quota": len(planner.under_quota),
            "generate/judge_pass_rate": tally.num_judged / len(tally),
            **{f"generate/pass_rate/{row.label}": row.pass_rate for row in outcome.itertuples()},
        }
    )
    outcome.to_csv(stage.plots_dir / "pass_rate.csv", index=False)
    plot_pass_rates(outcome, stage.plots_dir / "pass_rate.png")
    passed = np.frombuffer(tally.passed, dtype=bool)
    for name, chosen in (("kept", passed), ("rejected", ~passed)):
        if chosen.any():
            save_sheet(planner.labels, np.flatnonzero(chosen), SYNTHETIC, stage.plots_dir / f"{name}.png")
    for path in sorted(stage.plots_dir.glob("*.png")):
        stage.log_figure(path)
    for row in outcome[outcome.kept < outcome.quota].itertuples():
        log.warning("%s: %d of %d images kept (%s)", row.label, row.kept, row.quota, row.outcome)


if __name__ == "__main__":
    main()
