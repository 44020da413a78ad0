"""Draw candidates for the unseen labels until each has its quota of images that show it, or the budget is spent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from tailorset.generation.engine import Engine, LocalEngine, Shelf, generate_shards
from tailorset.generation.quota import QuotaPlanner
from tailorset.generation.report import Tally, metrics, outcome_table, save_plots
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
        config, unseen = stage.params.generate_images, stage.label_space.unseen
        planner = QuotaPlanner.of(config, unseen, read_prompts(PROMPTS), stage.params.seed)
        store = ShardStore(stage.shard_folder)
        tally = draw_all(stage, planner, store)
        if stage.is_main:
            with atomic_output(SYNTHETIC) as folder:
                store.assemble(tally.shards, folder)
            report(stage, planner, tally)


def draw_all(stage: Stage, planner: QuotaPlanner, store: ShardStore) -> Tally:
    """Draw every candidate and return the outcome; shards are stored as they are finished."""
    config = stage.params.generate_images
    tally = Tally(planner.labels, config.quota_threshold)
    shelf = Shelf(planner.labels, config.quota_threshold, store.finished_rows, store.keep)
    with Bar(total=config.max_images, unit="image", is_whole=True) as bar:
        engine = open_engine(stage, bar.update)
        for shard in generate_shards(engine, planner, config.shard_size, shelf):
            if shard.found:
                bar.update(len(shard.rows))
            tally.add(shard)
            bar.total = tally.expected_images(planner.quotas, config.max_images)
            bar.set_postfix_str(tally.fewest(planner.quotas))
            progress = {f"generate/kept/{label}": float(count) for label, count in tally.kept.items()}
            stage.log_metrics(progress | {"generate/batch_size": engine.batch_size}, step=len(tally))
    return tally


def open_engine(stage: Stage, on_batch: Callable[[int], object]) -> Engine:
    """Open the devices of this machine, or of a cluster."""
    params = stage.params
    if params.engine.name == "local":
        return LocalEngine(open_studio(params, stage.label_space, stage.device, LORA), on_batch)
    from tailorset.project.ray_engine import RayEngine  # an optional dependency

    files = [dep for dep in stage_definition(stage.name)["deps"] if Path(dep) not in (PROMPTS, LORA)]
    return RayEngine(params.engine.address, params, stage.label_space, LORA, files, on_batch)


def report(stage: Stage, planner: QuotaPlanner, tally: Tally) -> None:
    """Metrics, plots, and a warning for every label under quota."""
    outcome = outcome_table(planner, tally)
    stage.save_metrics(metrics(planner, tally, outcome))
    save_plots(tally, outcome, SYNTHETIC, stage.plots_dir)
    stage.log_figures(*stage.plots_dir.glob("*.png"))
    for row in outcome[outcome.kept < outcome.quota].itertuples():
        log.warning("%s: %d of %d images kept (%s)", row.label, row.kept, row.quota, row.outcome)


if __name__ == "__main__":
    main()
