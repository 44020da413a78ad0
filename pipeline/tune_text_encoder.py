"""Tune the generator's text encoder for the unseen labels, and measure on held-out prompts what that changed."""

from __future__ import annotations

import logging

from tailorset.clip.scorer import LabelScorer
from tailorset.generators import Generator
from tailorset.project.layout import LORA, PROMPTS
from tailorset.project.stage import Stage, run_stage
from tailorset.records import Prompt, read_prompts
from tailorset.storage import checksums
from tailorset.storage.files import atomic_output, write_json
from tailorset.tuning.held_out import HeldOut, split_prompts
from tailorset.tuning.loop import Progress, restored, tune
from tailorset.tuning.report import Pictures, live_metrics, metrics, save_plots
from tailorset.tuning.tuner import new_tuner

log = logging.getLogger(__name__)


def main() -> None:
    with run_stage("tune_text_encoder", parallel=True) as stage:
        params, config = stage.params, stage.params.tune_text_encoder
        prompts, held_out_prompts = split_prompts(read_prompts(PROMPTS), config.held_out_prompts, params.seed)
        held_out = open_held_out(stage, held_out_prompts)
        generator: Generator = params.generator.build(stage.device)

        before = held_out.images(generator, "before")
        progress = tune_all(stage, generator, prompts, held_out) if config.num_updates else Progress()
        if not stage.is_main:
            return
        after = held_out.images(generator, "after") if progress.kept_update else before
        with atomic_output(LORA) as folder:
            if progress.kept_update:
                generator.save_adapter(folder)
            write_json(folder / "tuning.json", {"num_updates": progress.kept_update})
            checksums.seal(folder)
        report(stage, progress, held_out, Pictures(before, after))


def open_held_out(stage: Stage, prompts: list[Prompt]) -> HeldOut:
    params, unseen = stage.params, stage.label_space.unseen
    clips = params.clip.load(stage.device)
    scorers = {role: LabelScorer(clip, unseen, params.clip.prompt_template) for role, clip in clips.items()}
    return HeldOut(prompts, scorers, params.generate_images.num_inference_steps, params.seed)


def tune_all(stage: Stage, generator: Generator, prompts: list[Prompt], held_out: HeldOut) -> Progress:
    """Tune from the last checkpoint on; the generator is left with the best adapter."""
    config, discriminator = stage.params.tune_text_encoder, held_out.scorers["discriminator"]
    tuner = new_tuner(generator, discriminator, prompts, config, stage.label_space, stage.params.seed)
    progress = restored(stage.work_dir, tuner)
    for record in tune(tuner, held_out, progress, stage.work_dir):
        stage.log_metrics(live_metrics(record, progress), step=record.update)
    stage.log_metrics({"tune/micro_batch": tuner.batches.size})
    return progress


def report(stage: Stage, progress: Progress, held_out: HeldOut, pictures: Pictures) -> None:
    """Metrics and plots, and a warning if updates were skipped."""
    figures = metrics(progress, held_out, pictures)
    stage.save_metrics(figures)
    if skipped := figures["tune/skipped_updates"]:
        log.warning("%d of %d updates were skipped: their gradient was not finite", skipped, figures["tune/updates"])
    save_plots(progress, held_out, pictures, stage.plots_dir)
    for path in sorted(stage.plots_dir.glob("*.png")):
        stage.log_figure(path)


if __name__ == "__main__":
    main()
