"""Tune the generator's UNet on annotated photos, so that unseen labels are drawn in the photos' look."""

from __future__ import annotations

import torch
from torch import Tensor

from tailorset.compute.memory import ShrinkingBatches
from tailorset.generators import PhotoLearner
from tailorset.generators.parts.lora import seal_adapter
from tailorset.project.layout import PROMPTS, REAL, UNET_LORA
from tailorset.project.stage import Stage, run_stage
from tailorset.records import Prompt, read_prompts
from tailorset.storage.files import atomic_output
from tailorset.storage.image_set import load_image_set
from tailorset.tuning.held_out import draw_images, split_prompts
from tailorset.tuning.photo_captions import UNET_MEMORY_REMEDY, PhotoCaptions, captioned, photos_of_seen_labels
from tailorset.tuning.unet_report import SHEET_PROMPTS, LookPictures, save_look, save_losses, unet_metrics
from tailorset.tuning.unet_tuner import UnetTuner, restored_unet, tune_unet


def main() -> None:
    with run_stage("tune_unet") as stage, atomic_output(UNET_LORA) as folder:
        folder.mkdir()
        if stage.params.tune_unet.num_updates:
            tuned(stage).save_adapter(folder, "denoisers")
        else:
            stage.save_metrics({"unet/updates": 0})
            save_losses([], stage.plots_dir)
        seal_adapter(folder, stage.params.tune_unet.num_updates)


def tuned(stage: Stage) -> PhotoLearner:
    """Tune the UNet from the last checkpoint on, and report what that changed."""
    params, config, space = stage.params, stage.params.tune_unet, stage.label_space
    prompts = read_prompts(PROMPTS)
    captions = PhotoCaptions(prompts, space, params.seed)
    rows, targets = photos_of_seen_labels(REAL, space, config.num_photos, params.seed)
    shown = split_prompts(prompts, min(SHEET_PROMPTS, len(prompts) - 1), params.seed)[1][: len(rows)]
    generator: PhotoLearner = params.generator.build(stage.device)
    before = drawn(stage, generator, shown)
    examples = captioned((rows, targets), REAL, captions, generator)
    tuner = UnetTuner(generator, examples, config, params.seed)
    history = restored_unet(stage.work_dir, tuner)
    for record in tune_unet(tuner, history, stage.work_dir):
        stage.log_metrics({"unet/loss": record.loss}, step=record.update)
    photos = load_image_set(rows[: len(shown)], targets[: len(shown)], REAL, generator.image_px).images
    pictures = LookPictures(photos.float() / 255, before, drawn(stage, generator, shown))
    stage.save_metrics(unet_metrics(history, len(rows), pictures))
    save_losses(history, stage.plots_dir)
    save_look(pictures, [", ".join(prompt.labels) for prompt in shown], stage.plots_dir)
    stage.log_figures(*stage.plots_dir.glob("*.png"))
    return generator


def drawn(stage: Stage, generator: PhotoLearner, prompts: list[Prompt]) -> Tensor:
    """Draw one image of each prompt, (M, 3, P, P) in [0, 1]."""
    steps = stage.params.generate_images.num_inference_steps
    batches = ShrinkingBatches(len(prompts), "drawing prompts before and after", UNET_MEMORY_REMEDY)
    return torch.cat(list(draw_images(generator, prompts, stage.params.seed, steps, batches, "look")))


if __name__ == "__main__":
    main()
