"""Fit a calibration and a threshold per label, and a limit of novelty, without a label of the target photos."""

from __future__ import annotations

import torch
from torch import Tensor

from tailorset.classifiers import check_labels, load_classifier
from tailorset.compute.memory import ShrinkingBatches
from tailorset.project.layout import CLASSIFIER, FILTERED, FITTED_TO, NOVELTY, REAL, SYNTHETIC, THRESHOLDS
from tailorset.project.stage import run_stage
from tailorset.storage.annotated import Annotated, Collection, Several
from tailorset.storage.checksums import bind
from tailorset.storage.files import atomic_output
from tailorset.thresholds.rules import score_logits
from tailorset.thresholds.sources import fit_familiar, fit_thresholds
from tailorset.training.loop import TRAINING_MEMORY_REMEDY, predict


def main() -> None:
    with run_stage("fit_thresholds") as stage:
        classifier = load_classifier(CLASSIFIER, stage.device)
        check_labels(classifier, stage.label_space.names)
        collection = Collection(stage.label_space, REAL, SYNTHETIC, FILTERED)

        def logits(images: Annotated | Several) -> Tensor:
            return score_logits(predict(classifier, images.load(classifier.image_px).images))

        @torch.inference_mode()
        def features(images: Annotated) -> Tensor:
            batches = ShrinkingBatches(128, "looking", TRAINING_MEMORY_REMEDY)
            pixels = images.load(classifier.image_px).images
            return batches.concatenated(lambda batch: classifier.describe(batch.float() / 255), pixels)

        held_out_share = stage.params.train_classifier.held_out_share
        thresholds = fit_thresholds(collection, logits, held_out_share, stage.params.fit_thresholds)
        with atomic_output(THRESHOLDS) as path:
            thresholds.save(path)
        with atomic_output(NOVELTY) as path:
            fit_familiar(collection, features).save(path)
        with atomic_output(FITTED_TO) as path:
            bind(CLASSIFIER, path)
        chosen = [rule.threshold for rule in thresholds.rules.values()]
        stage.save_metrics({"thresholds/lowest": min(chosen), "thresholds/highest": max(chosen)})


if __name__ == "__main__":
    main()
