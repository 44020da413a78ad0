"""Draw candidates for the unseen labels until each has its quota of images that show it, or the budget is spent."""

from __future__ import annotations

import logging

from tailorset.generation.negatives import Negatives, negative_draws, negative_shards
from tailorset.generation.quota import QuotaPlanner
from tailorset.generation.report import Tally, metrics, outcome_table, save_plots
from tailorset.generation.shard_store import ShardStore
from tailorset.project.layout import PROMPTS, SYNTHETIC
from tailorset.project.loops import draw_all
from tailorset.project.params import load_params
from tailorset.project.stage import Stage, run_stage
from tailorset.records import NEGATIVES, read_prompts
from tailorset.storage.files import atomic_output

log = logging.getLogger(__name__)


def main() -> None:
    with run_stage("generate_images", parallel=load_params().engine.name == "local") as stage:
        config, unseen = stage.params.generate_images, stage.label_space.unseen
        prompts, seed = read_prompts(PROMPTS), stage.params.seed
        planner = QuotaPlanner.of(config, unseen, prompts, seed)
        draws = negative_draws(prompts, stage.label_space, config.negative_images, seed)
        plans = negative_shards(draws, config.shard_size)
        negatives = Negatives(plans, ShardStore(stage.shard_folder / NEGATIVES))
        store = ShardStore(stage.shard_folder, from_photos=config.from_photos is not None)
        tally = draw_all(stage, stage.label_space, config, planner, store, negatives)
        if stage.is_main:
            with atomic_output(SYNTHETIC) as folder:
                store.assemble(tally.shards, folder)
                if plans:
                    negatives.store.assemble([plan.name for plan in plans], folder / NEGATIVES)
            report(stage, planner, tally)


def report(stage: Stage, planner: QuotaPlanner, tally: Tally) -> None:
    """Save metrics and plots, and warn of every label under quota."""
    outcome = outcome_table(planner, tally)
    stage.save_metrics(metrics(planner, tally, outcome))
    save_plots(tally, outcome, SYNTHETIC, stage.plots_dir)
    stage.log_figures(*stage.plots_dir.glob("*.png"))
    if tally.num_copies and 2 * tally.num_copies > len(tally):
        log.warning(
            "%d of %d images are near-duplicates of their photos: raise from_photos.strength",
            tally.num_copies,
            len(tally),
        )
    for row in outcome[outcome.kept < outcome.quota].itertuples():
        log.warning("%s: %d of %d images kept (%s)", row.label, row.kept, row.quota, row.outcome)


if __name__ == "__main__":
    main()
