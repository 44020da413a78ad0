"""Tune the generator's text encoder for the unseen labels, and measure on held-out prompts what that changed."""

from __future__ import annotations

from tailorset.generators import TunableGenerator
from tailorset.generators.parts.lora import seal_adapter
from tailorset.project.assembly import open_scorers
from tailorset.project.layout import LORA, PROMPTS, UNET_LORA
from tailorset.project.stage import Stage, run_stage
from tailorset.records import read_prompts
from tailorset.storage.files import atomic_output
from tailorset.tuning.held_out import HeldOut, split_prompts
from tailorset.tuning.loop import Progress, restored, tune
from tailorset.tuning.report import Pictures, before_after_sheet, live_metrics, metrics, save_curves
from tailorset.tuning.tuner import new_tuner


def main() -> None:
    with run_stage("tune_text_encoder", parallel=True) as stage:
        if stage.params.tune_text_encoder.num_updates:
            tune_and_measure(stage)
        elif stage.is_main:
            with atomic_output(LORA) as folder:
                seal_adapter(folder, 0)
            stage.save_metrics({"tune/updates": 0, "tune/kept_update": 0})
            save_curves(Progress(), stage.plots_dir)


def tune_and_measure(stage: Stage) -> None:
    """Tune from the last checkpoint on, keep the best adapter, and draw the held-out prompts with it and without."""
    params, config = stage.params, stage.params.tune_text_encoder
    prompts, held_out_prompts = split_prompts(read_prompts(PROMPTS), config.held_out_prompts, params.seed)
    scorers = open_scorers(params, stage.label_space, stage.device)
    held_out = HeldOut(held_out_prompts, scorers, params.generate_images.num_inference_steps, params.seed)
    generator: TunableGenerator = params.generator.build(stage.device)
    generator.load_adapter(UNET_LORA, "denoisers")

    before = held_out.images(generator, "before")
    tuner = new_tuner(generator, scorers["discriminator"], prompts, config, stage.label_space, params.seed)
    progress = restored(stage.work_dir, tuner)
    for record in tune(tuner, held_out, progress, stage.work_dir):
        stage.log_metrics(live_metrics(record, progress), step=record.update)
    stage.log_metrics({"tune/micro_batch": tuner.batches.size})
    if not stage.is_main:
        return
    after = held_out.images(generator, "after") if progress.kept_update else before
    with atomic_output(LORA) as folder:
        if progress.kept_update:
            generator.save_adapter(folder)
        seal_adapter(folder, progress.kept_update)
    pictures = Pictures(before, after)
    stage.save_metrics(metrics(progress, held_out, pictures))
    save_curves(progress, stage.plots_dir)
    before_after_sheet(scorers["discriminator"], held_out.shown, pictures).save(stage.plots_dir / "before_after.png")
    stage.log_figures(*stage.plots_dir.glob("*.png"))


if __name__ == "__main__":
    main()
