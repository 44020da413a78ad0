"""Training from the start, or from the last stored epoch, to the classifier that is best on val."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from tailorset.compute import processes
from tailorset.evaluation.metrics import harmonic_map, multilabel_metrics, zero_shot_metrics
from tailorset.evaluation.selection import RAW_CLIP, SEEN_MAP, START, History, best_candidate
from tailorset.records import LabelSpace
from tailorset.seeding import torch_generator
from tailorset.storage.checkpoint import Part, load_checkpoint, restore_checkpoint, save_checkpoint
from tailorset.storage.files import atomic_output
from tailorset.storage.image_set import ImageSet, Mixture
from tailorset.training.contract import Trainable, TrainingConfig
from tailorset.training.interpolation import Interpolation
from tailorset.training.loop import predict, train_epochs
from tailorset.training.support import add_support, check_support
from tailorset.training.weight_average import WeightAverage

NUM_CALIBRATION_IMAGES = 1000
HISTORY, LAST = "history.json", "last.safetensors"
Learner = TypeVar("Learner", bound=Trainable)


@dataclass(frozen=True)
class Validation:
    """Measures candidates on the images of val. of_seen: also measure mAP over the seen labels alone."""

    val: ImageSet
    label_space: LabelSpace
    of_seen: bool

    def of(self, classifier: Trainable) -> dict[str, float]:
        """Return the metrics of a classifier."""
        return self.of_scores(predict(classifier, self.val.images))

    def of_scores(self, scores: Tensor) -> dict[str, float]:
        """Return `val/...` of scores (N, L): all zero-shot metrics, and those that choose among candidates."""
        metrics = zero_shot_metrics(scores, self.val.targets, self.label_space)
        found = {f"val/{key}": value for key, value in (metrics | {"harmonic_map": harmonic_map(metrics)}).items()}
        if self.of_seen:
            seen = self.label_space.columns(self.label_space.seen)
            found[SEEN_MAP] = multilabel_metrics(scores[:, seen], self.val.targets[:, seen])["map"]
        return found


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
        The best candidate on val, and the metrics of all candidates, in the order of `evaluation.selection`.

    Raises:
        ValueError: generated images are to be kept, and no photo of val is annotated.
    """
    check_support(classifier, val)
    validation, stored = Validation(val, label_space, config.choose_on_seen), StoredCandidates(work_dir)
    raw = classifier.raw_clip()
    _calibrate((raw, classifier), data, seed)
    learned, optimizers = classifier.learned_modules(), classifier.optimizers()
    average = WeightAverage(learned, config.ema_decay)
    state = learned | {f"optimizer_{name}": optimizer for name, optimizer in optimizers.items()} | {"average": average}
    history = _restored(work_dir, state)
    processes.broadcast([tensor for part in learned.values() for tensor in (*part.parameters(), *part.buffers())])
    if not history:
        untrained = ((RAW_CLIP, raw), (START, classifier))
        history = [{"epoch": epoch} | validation.of(candidate) for epoch, candidate in untrained]
        stored.save(history, learned)
    last_epoch = int(history[-1]["epoch"])
    epochs = train_epochs(classifier, data, optimizers, config, seed, last_epoch, average.update)
    for epoch, training in enumerate(epochs, last_epoch + 1):
        with average.applied():
            history.append({"epoch": epoch} | validation.of(classifier) | training)
            stored.save(history, learned)
        if processes.rank() == 0:
            _keep(work_dir, history, state)  # everything before it is repeated after a kill
            stored.tidy(history)
        on_epoch(history[-1], epoch)
    processes.barrier()  # for the stored weights
    if config.interpolation:
        _interpolate(classifier, stored, config.interpolation, validation, history)
    restore_checkpoint(stored.best(history), **learned)
    classifier.train().eval()  # the label features follow the contexts
    kept = raw if best_candidate(history)["epoch"] == RAW_CLIP else classifier
    return kept, history + add_support(kept, data, val, history, validation.of_scores)


@dataclass(frozen=True)
class StoredCandidates:
    """Weights of the candidates that may still be needed: the start, the best of all, and the best epoch.

    Files are named by place in the history, so that a file of an interrupted attempt is never mistaken for another.
    """

    folder: Path

    def of(self, place: int) -> Path:
        """Return the file of a candidate; raw CLIP, at place 0, is not stored and has that of the start."""
        return self.folder / f"candidate-{max(place, 1)}.safetensors"

    def best(self, history: History) -> Path:
        """Return the file of the best candidate of all."""
        return self.of(_place(history, best_candidate(history)))

    def ends(self, history: History) -> tuple[Path, Path]:
        """Return the files of the start and of the best epoch."""
        return self.of(1), self.of(_place(history, best_candidate(history[2:])))

    def save(self, history: History, learned: Mapping[str, nn.Module]) -> None:
        """Store the weights of the latest candidate, if they may be needed; only process 0 does."""
        latest = self.of(len(history) - 1)
        if processes.rank() == 0 and latest in self._wanted(history):
            save_checkpoint(latest, int(history[-1]["epoch"]), **learned)

    def tidy(self, history: History) -> None:
        """Delete weights that are no longer needed."""
        wanted = self._wanted(history)
        for path in set(self.folder.glob("candidate-*.safetensors")) - set(wanted):
            path.unlink()

    def _wanted(self, history: History) -> tuple[Path, ...]:
        return (self.best(history), *(self.ends(history) if len(history) > 2 else (self.of(1),)))


def _place(history: History, candidate: dict[str, float]) -> int:
    return next(place for place, row in enumerate(history) if row is candidate)


def _interpolate(
    classifier: Trainable, stored: StoredCandidates, shares: tuple[float, ...], validation: Validation, history: History
) -> None:
    """Add the weights between the start and the best epoch to the candidates; the best is stored."""
    epoch, learned = best_candidate(history[2:])["epoch"], classifier.learned_modules()
    line = Interpolation(learned, *stored.ends(history))
    for share in shares:
        line.apply(share)
        history.append({"epoch": epoch, "interpolation": share} | validation.of(classifier))
        stored.save(history, learned)
    processes.barrier()


def calibration_sample(num_images: int, seed: int) -> list[int]:
    """Return indices of the training images that the scores are calibrated on before training."""
    order = torch.randperm(num_images, generator=torch_generator(seed, "calibrate"))
    return sorted(order[:NUM_CALIBRATION_IMAGES].tolist())


def _calibrate(candidates: tuple[Trainable, ...], data: ImageSet | Mixture, seed: int) -> None:
    sample = calibration_sample(len(data), seed)
    for candidate in candidates:
        candidate.calibrate(data.pixels(sample), data.targets[sample])


def _restored(work_dir: Path, state: Mapping[str, Part]) -> History:
    """Restore the state after the last stored epoch, and return the metrics up to it; [] if there is none."""
    if not (last_epoch := load_checkpoint(work_dir / LAST, **state)):
        return []
    rows: History = json.loads((work_dir / HISTORY).read_text(encoding="utf-8"))
    return [row for row in rows if row["epoch"] <= last_epoch]  # a run may have ended between history and checkpoint


def _keep(work_dir: Path, history: History, state: Mapping[str, Part]) -> None:
    with atomic_output(work_dir / HISTORY) as partial:
        partial.write_text(json.dumps(history), encoding="utf-8")
    save_checkpoint(work_dir / LAST, int(history[-1]["epoch"]), **state)
