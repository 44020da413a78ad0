"""Train the classifier on annotated real images (seen labels) and kept generated ones (unseen labels)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from tailorset import processes
from tailorset.checkpoint import load_checkpoint, save_checkpoint
from tailorset.classifier_training import TrainingConfig, predict, train_epochs
from tailorset.classifiers import Classifier
from tailorset.image_set import (
    ImageSet,
    Mixture,
    is_annotated,
    load_image_set,
    real_rows,
    split_held_out,
    synthetic_rows,
)
from tailorset.metrics import harmonic_map, zero_shot_metrics
from tailorset.plugins import load_plugin
from tailorset.records import LabelSpace
from tailorset.seeding import torch_generator
from tailorset.stage import CLASSIFIER, FILTERED, REAL, SYNTHETIC, Stage, atomic_output, run_stage
from tailorset.weight_average import WeightAverage

SOURCES = ("real", "synthetic")
NUM_CALIBRATION_IMAGES = 1000
log = logging.getLogger(__name__)

History = list[dict[str, float]]  # entry e: validation metrics after e epochs, entry 0 before training


def load_training_sets(
    label_space: LabelSpace, image_px: int, train_on: Sequence[str], held_out_share: float
) -> dict[str, ImageSet]:
    """Real train images, kept synthetic images, or both, as `train_on` names them; without those held out."""
    sources = {
        "real": lambda: (real_rows(REAL, "train", label_space), REAL),
        "synthetic": lambda: (synthetic_rows(FILTERED / "manifest.parquet", label_space), SYNTHETIC),
    }
    sets = {}
    for name in train_on:
        annotated, folder = sources[name]()
        (rows, targets), _ = split_held_out(*annotated, held_out_share)
        sets[name] = load_image_set(rows, targets, folder, image_px)
    return sets


def selection_set(label_space: LabelSpace, image_px: int, held_out_share: float) -> ImageSet:
    """What the epoch is chosen on: the val photographs, or, where they are not annotated, held-out generated images."""
    rows, targets = real_rows(REAL, "val", label_space)
    if is_annotated(targets):
        return load_image_set(rows, targets, REAL, image_px)
    log.warning("no val photograph is annotated: the epoch is chosen on generated images that were held out")
    _, held_out = split_held_out(*synthetic_rows(FILTERED / "manifest.parquet", label_space), held_out_share)
    return load_image_set(*held_out, SYNTHETIC, image_px)


def epoch_images(images: Mapping[str, ImageSet], synthetic_repeats: int) -> Mixture:
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


def best_epoch(history: History) -> int:
    """The first epoch with the best harmonic mean of ZSL and GZSL mAP on val; 0 = training did not help."""
    return max(range(len(history)), key=lambda epoch: history[epoch]["val/harmonic_map"])


def fit(
    classifier: Classifier,
    data: ImageSet | Mixture,
    val: ImageSet,
    label_space: LabelSpace,
    config: TrainingConfig,
    seed: int,
    work_dir: Path,
    stage: Stage | None = None,
) -> History:
    """Train all epochs, or those after the last one stored in `work_dir`; leaves the best one in the classifier.

    Several processes share the batches; process 0 alone stores.
    """
    is_main = processes.rank() == 0
    sample = calibration_sample(len(data), seed)
    classifier.calibrate(data.pixels(sample), data.targets[sample])
    learned, optimizers = classifier.learned_modules(), classifier.optimizers()
    average = WeightAverage(learned, config.ema_decay)
    parts = learned | {f"optimizer_{name}": optimizer for name, optimizer in optimizers.items()} | {"average": average}
    last, best, told = (work_dir / name for name in ("last.safetensors", "best.safetensors", "history.json"))
    first_epoch = load_checkpoint(last, **parts)
    processes.alike([tensor for part in learned.values() for tensor in (*part.parameters(), *part.buffers())])
    if first_epoch:
        history: History = json.loads(told.read_text(encoding="utf-8"))[: first_epoch + 1]
    else:
        history = [validate(classifier, val, label_space)]
        if is_main:
            save_checkpoint(best, 0, **learned)
    epochs = train_epochs(classifier, data, optimizers, config, seed, first_epoch, average.update)
    for epoch, training in enumerate(epochs, first_epoch + 1):
        with average.applied():
            history.append(validate(classifier, val, label_space) | training)
            if is_main and best_epoch(history) == epoch:
                save_checkpoint(best, epoch, **learned)
        if is_main:
            with atomic_output(told) as partial:
                partial.write_text(json.dumps(history), encoding="utf-8")
            save_checkpoint(last, epoch, **parts)  # last: what comes before it is redone after a kill
        if stage:
            stage.log_metrics(history[-1], step=epoch)
    processes.wait()  # for the best checkpoint
    load_checkpoint(best, **learned)
    classifier.train().eval()  # the label features follow the contexts
    return history


def main() -> None:
    with run_stage("train_classifier", parallel=True) as stage:
        block = stage.params.train_classifier
        config, label_space = block.config, stage.label_space
        assert isinstance(config, TrainingConfig)
        classifier = load_plugin("classifiers", block.name).build(config, label_space, stage.device)

        images = load_training_sets(label_space, classifier.image_px, config.train_on, block.held_out_share)
        val = selection_set(label_space, classifier.image_px, block.held_out_share)
        data = epoch_images(images, block.synthetic_repeats)
        history = fit(classifier, data, val, label_space, config, stage.params.seed, stage.work_dir, stage)

        if not stage.is_main:
            return
        with atomic_output(CLASSIFIER) as folder:
            classifier.save(folder)
        chosen = best_epoch(history)
        if not chosen:
            log.warning("no epoch was better on val than none: the classifier is zero-shot CLIP as training found it")
        counts = {"best_epoch": chosen} | {f"num_{name}_images": len(images.get(name, ())) for name in SOURCES}
        stage.save_metrics(history[chosen] | {"val/start_zsl/map": history[0]["val/zsl/map"]} | counts)
        pd.DataFrame(history).rename_axis("epoch").to_csv(stage.plots_dir / "history.csv")


if __name__ == "__main__":
    main()
