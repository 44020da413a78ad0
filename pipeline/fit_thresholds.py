"""Fit a calibration and a threshold per label, and what is usual, without a label of the target photos."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tailorset.classifiers import Classifier, check_labels, load_classifier
from tailorset.compute.memory import ShrinkingBatches
from tailorset.evaluation.metrics import column_indices
from tailorset.project.layout import CLASSIFIER, FILTERED, NOVELTY, REAL, SYNTHETIC, THRESHOLDS
from tailorset.project.stage import Stage, run_stage
from tailorset.records import NOT_ANNOTATED
from tailorset.seeding import sample_seed
from tailorset.storage.files import atomic_output
from tailorset.storage.image_set import AnnotatedRows, load_image_set, real_rows, split_held_out, synthetic_rows
from tailorset.thresholds.fitting import Affine, fit_mixture, fit_platt, fit_seen, make_thresholds, transfer
from tailorset.thresholds.novelty import Novelty, fit_novelty
from tailorset.thresholds.rules import Thresholds, score_logits
from tailorset.training.loop import REMEDY, predict

NUM_FAMILIAR = 4000  # photos of a split whose features say what is usual


def image_logits(classifier: Classifier, annotated: AnnotatedRows, folder: Path) -> Tensor:
    """The classifier's logits, (N, L), of manifest rows."""
    data = load_image_set(*annotated, folder, classifier.image_px)
    return score_logits(predict(classifier, data.images))


def photo_logits(stage: Stage, classifier: Classifier) -> Tensor:
    """Logits of the target domain's photos: the val split, its labels dropped here."""
    rows, targets = real_rows(REAL, "val", stage.label_space)
    return image_logits(classifier, (rows, torch.full_like(targets, NOT_ANNOTATED)), REAL)


def fit_on_seen(stage: Stage, classifier: Classifier, photos: Tensor) -> Affine:
    """Calibration of the seen labels; photos: their columns of the unannotated photos."""
    labels, share = stage.label_space.seen, stage.params.train_classifier.held_out_share
    columns = column_indices(stage.label_space, labels)
    _, held_out = split_held_out(*real_rows(REAL, "train", stage.label_space), share)
    return fit_seen(image_logits(classifier, held_out, REAL)[:, columns], held_out[1][:, columns], photos, labels)


def fit_on_synthetic(stage: Stage, classifier: Classifier, photos: Tensor) -> Affine:
    """Calibration of the unseen labels from generated images; photos: their columns of the unannotated photos."""
    labels, share = stage.label_space.unseen, stage.params.train_classifier.held_out_share
    columns = column_indices(stage.label_space, labels)
    _, held_out = split_held_out(*synthetic_rows(FILTERED / "manifest.parquet", stage.label_space), share)
    logits = image_logits(classifier, held_out, SYNTHETIC)[:, columns]
    return fit_mixture(fit_platt(logits, held_out[1][:, columns], labels), photos)


def fit(stage: Stage, classifier: Classifier) -> Thresholds:
    """The rules of all labels, in the order of the label space."""
    label_space, config = stage.label_space, stage.params.fit_thresholds
    logits = photo_logits(stage, classifier)
    seen, unseen = (logits[:, column_indices(label_space, names)] for names in (label_space.seen, label_space.unseen))
    rules = {}
    if label_space.seen:
        of_seen = fit_on_seen(stage, classifier, seen)
        rules |= make_thresholds(label_space.seen, of_seen, seen, None, config.max_risk).rules
    if config.source == "seen_photos":
        of_unseen = transfer(of_seen, unseen, config.share_pooling)
    else:
        of_unseen = fit_on_synthetic(stage, classifier, unseen)
    rules |= make_thresholds(label_space.unseen, of_unseen, unseen, None, config.max_risk).rules
    return Thresholds({name: rules[name] for name in label_space.names})


def image_features(classifier: Classifier, annotated: AnnotatedRows) -> Tensor:
    """The classifier's features of real photos, (N, D); of many, those with the lowest hashes."""
    rows, targets = annotated
    order = sorted(range(len(rows)), key=lambda index: sample_seed("novelty", rows["image_id"].iloc[index]))
    chosen = sorted(order[:NUM_FAMILIAR])
    data = load_image_set(rows.iloc[chosen], targets[chosen], REAL, classifier.image_px)
    batches = ShrinkingBatches(128, "looking", REMEDY)
    return batches.concatenated(lambda batch: classifier.look(batch.float() / 255)[1], data.images)


@torch.inference_mode()
def fit_familiar(stage: Stage, classifier: Classifier) -> Novelty:
    """What is usual among the photos of train (of val, where all labels are unseen), with a limit by those of val."""
    val = image_features(classifier, real_rows(REAL, "val", stage.label_space))
    if not stage.label_space.seen:
        return fit_novelty(val, val)
    return fit_novelty(image_features(classifier, real_rows(REAL, "train", stage.label_space)), val)


def main() -> None:
    with run_stage("fit_thresholds") as stage:
        classifier = load_classifier(CLASSIFIER, stage.device)
        check_labels(classifier, stage.label_space.names)
        thresholds = fit(stage, classifier)
        with atomic_output(THRESHOLDS) as path:
            thresholds.save(path)
        with atomic_output(NOVELTY) as path:
            fit_familiar(stage, classifier).save(path)
        chosen = [rule.threshold for rule in thresholds.rules.values()]
        stage.save_metrics({"thresholds/lowest": min(chosen), "thresholds/highest": max(chosen)})


if __name__ == "__main__":
    main()
