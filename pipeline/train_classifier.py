"""Train the classifier on annotated real images (seen labels) and kept generated ones (unseen labels)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from tailorset.classifiers import Classifier
from tailorset.compute import processes
from tailorset.evaluation.metrics import harmonic_map, zero_shot_metrics
from tailorset.evaluation.selection import RAW_CLIP, START, History, best, selection_metrics, training_notes
from tailorset.images.sheets import contact_sheet
from tailorset.plugins import load_plugin
from tailorset.project.layout import CLASSIFIER, FILTERED, REAL, SYNTHETIC
from tailorset.project.stage import Stage, run_stage
from tailorset.records import LabelSpace, Source
from tailorset.seeding import torch_generator
from tailorset.storage.checkpoint import load_checkpoint, save_checkpoint
from tailorset.storage.files import atomic_output
from tailorset.storage.image_set import (
    AnnotatedRows,
    ImageSet,
    Mixture,
    is_annotated,
    load_image_set,
    real_rows,
    split_held_out,
    synthetic_rows,
)
from tailorset.training.augment import AugmentConfig
from tailorset.training.loop import TrainingConfig, augmented, predict, train_epochs
from tailorset.training.weight_average import WeightAverage

SOURCES: tuple[Source, ...] = ("real", "synthetic")
NUM_CALIBRATION_IMAGES = 1000
NUM_SHOWN = 24  # images of each kind on the sheet
log = logging.getLogger(__name__)


def load_training_sets(
    label_space: LabelSpace, image_px: int, train_on: Sequence[Source], held_out_share: float
) -> dict[Source, ImageSet]:
    """Real train images, kept synthetic images, or both, as `train_on` names them; without those held out."""
    readers: dict[Source, Callable[[], tuple[AnnotatedRows, Path]]] = {
        "real": lambda: (real_rows(REAL, "train", label_space), REAL),
        "synthetic": lambda: (synthetic_rows(FILTERED / "manifest.parquet", label_space), SYNTHETIC),
    }
    sets: dict[Source, ImageSet] = {}
    for source in train_on:
        annotated, folder = readers[source]()
        (rows, targets), _ = split_held_out(*annotated, held_out_share)
        sets[source] = load_image_set(rows, targets, folder, image_px, source)
    return sets


def selection_set(label_space: LabelSpace, image_px: int, held_out_share: float) -> ImageSet:
    """What the epoch is chosen on: the val photographs, or, where they are not annotated, held-out generated images."""
    rows, targets = real_rows(REAL, "val", label_space)
    if is_annotated(targets):
        return load_image_set(rows, targets, REAL, image_px)
    log.warning("no val photograph is annotated: the epoch is chosen on generated images that were held out")
    _, held_out = split_held_out(*synthetic_rows(FILTERED / "manifest.parquet", label_space), held_out_share)
    return load_image_set(*held_out, SYNTHETIC, image_px, "synthetic")


def epoch_images(images: Mapping[Source, ImageSet], synthetic_repeats: int) -> Mixture:
    """What an epoch passes over: photographs once, generated images `synthetic_repeats` times."""
    times = {"real": 1, "synthetic": synthetic_repeats}
    return Mixture([(part, times[name]) for name, part in images.items()])


def validate(classifier: Classifier, val: ImageSet, label_space: LabelSpace) -> dict[str, float]:
    metrics = zero_shot_metrics(predict(classifier, val.images), val.targets, label_space)
    return {f"val/{key}": value for key, value in (metrics | {"harmonic_map": harmonic_map(metrics)}).items()}


def calibration_sample(num_images: int, seed: int) -> list[int]:
    """Indices of the training images whose scores are calibrated before training."""
    order = torch.randperm(num_images, generator=torch_generator(seed, "calibrate"))
    return sorted(order[:NUM_CALIBRATION_IMAGES].tolist())


def fit(
    classifier: Classifier,
    data: ImageSet | Mixture,
    val: ImageSet,
    label_space: LabelSpace,
    config: TrainingConfig,
    seed: int,
    work_dir: Path,
    stage: Stage | None = None,
) -> tuple[Classifier, History]:
    """Train all epochs, or those after the last one stored in `work_dir`; the best candidate on val, and its rivals.

    Several processes share the batches; process 0 alone stores.
    """
    is_main = processes.rank() == 0
    sample, raw = calibration_sample(len(data), seed), classifier.raw_clip()
    for candidate in (raw, classifier):
        candidate.calibrate(data.pixels(sample), data.targets[sample])
    learned, optimizers = classifier.learned_modules(), classifier.optimizers()
    average = WeightAverage(learned, config.ema_decay)
    parts = learned | {f"optimizer_{name}": optimizer for name, optimizer in optimizers.items()} | {"average": average}
    last, best_file, told = (work_dir / name for name in ("last.safetensors", "best.safetensors", "history.json"))
    first_epoch = load_checkpoint(last, **parts)
    processes.alike([tensor for part in learned.values() for tensor in (*part.parameters(), *part.buffers())])
    if first_epoch:
        rows: History = json.loads(told.read_text(encoding="utf-8"))
        history = [row for row in rows if row["epoch"] <= first_epoch]
    else:
        untrained = ((RAW_CLIP, raw), (START, classifier))
        history = [{"epoch": epoch} | validate(candidate, val, label_space) for epoch, candidate in untrained]
        if is_main:
            save_checkpoint(best_file, 0, **learned)
    epochs = train_epochs(classifier, data, optimizers, config, seed, first_epoch, average.update)
    for epoch, training in enumerate(epochs, first_epoch + 1):
        with average.applied():
            history.append({"epoch": epoch} | validate(classifier, val, label_space) | training)
            if is_main and best(history)["epoch"] == epoch:
                save_checkpoint(best_file, epoch, **learned)
        if is_main:
            with atomic_output(told) as partial:
                partial.write_text(json.dumps(history), encoding="utf-8")
            save_checkpoint(last, epoch, **parts)  # last: what comes before it is redone after a kill
        if stage:
            stage.log_metrics(history[-1], step=epoch)
    processes.wait()  # for the best checkpoint
    load_checkpoint(best_file, **learned)
    classifier.train().eval()  # the label features follow the contexts
    return (raw if best(history)["epoch"] == RAW_CLIP else classifier), history


def augmented_sheet(data: Mixture, config: AugmentConfig, label_space: LabelSpace, seed: int) -> Image.Image:
    """Some photographs and some generated images as the first epoch sees them, with the labels they are to teach."""
    shown = []
    for source in SOURCES:
        indices = [index for index, other in enumerate(data.sources) if other == source]
        order = torch.randperm(len(indices), generator=torch_generator(seed, "sheet", source)).tolist()
        shown += [indices[place] for place in order[:NUM_SHOWN]]
    images = (255 * augmented(data, shown, config, seed, epoch=0)).round().byte().permute(0, 2, 3, 1)
    kinds = {"real": "photo", "synthetic": "generated"}
    captions = [
        f"{kinds[data.sources[index]]}\n{', '.join(present_labels(data.targets[index], label_space))}"
        for index in shown
    ]
    title = "training images as augmented in epoch 1, and the labels they are to teach: all must be visible"
    return contact_sheet(list(images.numpy()), captions, columns=8, scale=1, title=title)


def present_labels(targets: Tensor, label_space: LabelSpace) -> list[str]:
    return [name for name, target in zip(label_space.names, targets.tolist(), strict=True) if target == 1]


def main() -> None:
    with run_stage("train_classifier", parallel=True) as stage:
        block = stage.params.train_classifier
        config, label_space = block.config, stage.label_space
        assert isinstance(config, TrainingConfig)
        classifier = load_plugin("classifiers", block.name).build(config, label_space, stage.device)

        images = load_training_sets(label_space, classifier.image_px, config.train_on, block.held_out_share)
        val = selection_set(label_space, classifier.image_px, block.held_out_share)
        data = epoch_images(images, block.synthetic_repeats)
        sheet = stage.plots_dir / "augmented.png"
        if stage.is_main:
            augmented_sheet(data, config.augment, label_space, stage.params.seed).save(sheet)
        kept, history = fit(classifier, data, val, label_space, config, stage.params.seed, stage.work_dir, stage)

        if not stage.is_main:
            return
        with atomic_output(CLASSIFIER) as folder:
            kept.save(folder)
        metrics = selection_metrics(history)
        for note in training_notes(metrics):
            log.warning(note)
        stage.save_metrics(metrics | {f"num_{name}_images": len(images.get(name, ())) for name in SOURCES})
        pd.DataFrame(history).to_csv(stage.plots_dir / "history.csv", index=False)
        stage.log_figure(sheet)


if __name__ == "__main__":
    main()
