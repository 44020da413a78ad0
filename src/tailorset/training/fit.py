"""Training from the start, or from the last stored epoch, to the classifier that is best on val."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch

from tailorset.compute import processes
from tailorset.evaluation.metrics import harmonic_map, zero_shot_metrics
from tailorset.evaluation.selection import RAW_CLIP, START, History, best_candidate
from tailorset.records import LabelSpace
from tailorset.seeding import torch_generator
from tailorset.storage.checkpoint import load_checkpoint, save_checkpoint
from tailorset.storage.files import atomic_output
from tailorset.storage.image_set import ImageSet, Mixture
from tailorset.training.contract import Trainable, TrainingConfig
from tailorset.training.loop import predict, train_epochs
from tailorset.training.weight_average import WeightAverage

NUM_CALIBRATION_IMAGES = 1000
Learner = TypeVar("Learner", bound=Trainable)


def fit(
    classifier: Learner,
    data: ImageSet | Mixture,
    val: ImageSet,
    label_space: LabelSpace,
    config: TrainingConfig,
    seed: int,
    work_dir: Path,
    on_epoch: Callable[[Mapping[str, float], int], None] = lambda metrics, epoch: None,
) -> tuple[Learner, History]:
    """Train all epochs, or those after the last one stored in `work_dir`.

    Several processes share the batches; only process 0 stores.

    on_epoch: called with an epoch's metrics and its number, from 1.

    Returns:
        The best candidate on val, and the metrics of all candidates: raw CLIP, the start, each epoch.
    """
    is_main = processes.rank() == 0
    raw = classifier.raw_clip()
    _calibrate((raw, classifier), data, seed)
    learned, optimizers = classifier.learned_modules(), classifier.optimizers()
    average = WeightAverage(learned, config.ema_decay)
    parts = learned | {f"optimizer_{name}": optimizer for name, optimizer in optimizers.items()} | {"average": average}
    last, best_file, history_file = (
        work_dir / name for name in ("last.safetensors", "best.safetensors", "history.json")
    )
    first_epoch = load_checkpoint(last, **parts)
    processes.broadcast([tensor for part in learned.values() for tensor in (*part.parameters(), *part.buffers())])
    if first_epoch:
        history = _read_history(history_file, first_epoch)
    else:
        untrained = ((RAW_CLIP, raw), (START, classifier))
        history = [{"epoch": epoch} | val_metrics(candidate, val, label_space) for epoch, candidate in untrained]
        if is_main:
            save_checkpoint(best_file, 0, **learned)
    epochs = train_epochs(classifier, data, optimizers, config, seed, first_epoch, average.update)
    for epoch, training in enumerate(epochs, first_epoch + 1):
        with average.applied():
            history.append({"epoch": epoch} | val_metrics(classifier, val, label_space) | training)
            if is_main and best_candidate(history)["epoch"] == epoch:
                save_checkpoint(best_file, epoch, **learned)
        if is_main:
            _write_history(history_file, history)
            save_checkpoint(last, epoch, **parts)  # last: everything before it is repeated after a kill
        on_epoch(history[-1], epoch)
    processes.barrier()  # for the best checkpoint
    load_checkpoint(best_file, **learned)
    classifier.train().eval()  # the label features follow the contexts
    return (raw if best_candidate(history)["epoch"] == RAW_CLIP else classifier), history


def val_metrics(classifier: Trainable, val: ImageSet, label_space: LabelSpace) -> dict[str, float]:
    """Return `val/...`: all zero-shot metrics, and the harmonic mean that chooses the epoch."""
    metrics = zero_shot_metrics(predict(classifier, val.images), val.targets, label_space)
    return {f"val/{key}": value for key, value in (metrics | {"harmonic_map": harmonic_map(metrics)}).items()}


def calibration_sample(num_images: int, seed: int) -> list[int]:
    """Return indices of the training images that the scores are calibrated on before training."""
    order = torch.randperm(num_images, generator=torch_generator(seed, "calibrate"))
    return sorted(order[:NUM_CALIBRATION_IMAGES].tolist())


def _calibrate(candidates: tuple[Trainable, ...], data: ImageSet | Mixture, seed: int) -> None:
    sample = calibration_sample(len(data), seed)
    for candidate in candidates:
        candidate.calibrate(data.pixels(sample), data.targets[sample])


def _read_history(path: Path, last_epoch: int) -> History:
    """Read the metrics up to the last stored epoch: a run may have ended between history and checkpoint."""
    rows: History = json.loads(path.read_text(encoding="utf-8"))
    return [row for row in rows if row["epoch"] <= last_epoch]


def _write_history(path: Path, history: History) -> None:
    with atomic_output(path) as partial:
        partial.write_text(json.dumps(history), encoding="utf-8")
