"""Draw candidates for the unseen labels until each has its quota of images that show it, or the budget is spent."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from tailorset.allocation import build
from tailorset.generation import Row, Studio, generate_shards, passes
from tailorset.generation_report import outcome_table, plot_pass_rates, save_sheet
from tailorset.plugins import load_plugin
from tailorset.quota import QuotaPlanner
from tailorset.records import PROMPT_COLUMNS, Prompt
from tailorset.shard_store import ShardStore
from tailorset.stage import LORA, PROMPTS, SYNTHETIC, Stage, atomic_output, run_stage

log = logging.getLogger(__name__)


def main() -> None:
    with run_stage("generate_images", parallel=True) as stage:
        settings = stage.params.generate_images
        prompts = [Prompt(**row) for row in pq.read_table(PROMPTS, columns=list(PROMPT_COLUMNS)).to_pylist()]
        allocation = build(seed=stage.params.seed, **settings.allocation.model_dump())
        quota, budget = settings.images_per_label, settings.max_images
        planner = QuotaPlanner(stage.label_space.unseen, prompts, quota, budget, allocation, settings.weakness)
        store = ShardStore(stage.work_dir)
        rows = draw_all(stage, planner, store)
        if stage.is_main:
            with atomic_output(SYNTHETIC) as folder:
                store.assemble(rows, folder)
            report(stage, planner, rows)


def draw_all(stage: Stage, planner: QuotaPlanner, store: ShardStore) -> list[Row]:
    """Every candidate's row; shards go to `store` as they are finished."""
    settings, rows = stage.params.generate_images, []
    kept, studio = dict.fromkeys(planner.labels, 0), open_studio(stage)
    with tqdm(total=settings.max_images, desc="generate_images (at most)", unit="image") as bar:
        shards = generate_shards(
            studio,
            planner,
            settings.quota_threshold,
            settings.shard_size,
            store.finished_rows,
            store.keep,
            bar.update,
        )
        for shard in shards:
            if shard.samples is None:
                bar.update(len(shard.rows))
            rows += shard.rows
            for row, passed in zip(shard.rows, shard.passed, strict=True):
                for label in row["labels"]:
                    kept[label] += passed
            bar.set_postfix_str(_fewest(kept, planner.quotas))
            progress = {f"generate/kept/{label}": float(count) for label, count in kept.items()}
            stage.log_metrics(progress | {"generate/batch_size": studio.drawing.size}, step=len(rows))
    return rows


def open_studio(stage: Stage) -> Studio:
    params = stage.params
    generator = load_plugin("generators", params.generator.name).build(params.generator.config, stage.device)
    generator.load_adapter(LORA)
    return Studio(
        generator=generator,
        discriminator=params.clip.discriminator.load(stage.device),
        judge=params.clip.judge.load(stage.device),
        unseen=stage.label_space.unseen,
        prompt_template=params.clip.prompt_template,
        base_seed=params.seed,
        num_inference_steps=params.generate_images.num_inference_steps,
        batch_size=params.generate_images.batch_size,
    )


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
