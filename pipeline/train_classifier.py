"""Train the classifier on annotated photos (seen labels) and kept generated images (unseen labels)."""

from __future__ import annotations

import logging

import pandas as pd

from tailorset.classifiers import load_classifier
from tailorset.evaluation.selection import selection_metrics, training_notes
from tailorset.project.layout import CLASSIFIER, FILTERED, REAL, SYNTHETIC
from tailorset.project.stage import run_stage
from tailorset.storage.annotated import Collection
from tailorset.storage.files import atomic_output
from tailorset.training.fit import Validation, fit
from tailorset.training.images import SOURCES, augmented_sheet, epoch_images, selection_set, training_sets

log = logging.getLogger(__name__)


def main() -> None:
    with run_stage("train_classifier", parallel=True) as stage:
        block, label_space, seed = stage.params.train_classifier, stage.label_space, stage.params.seed
        config = block.config
        classifier = block.build(label_space, stage.device)

        collection = Collection(label_space, REAL, SYNTHETIC, FILTERED)
        images = training_sets(collection, classifier.image_px, config.train_on, block.held_out_share)
        val = selection_set(collection, classifier.image_px, block.held_out_share)
        data = epoch_images(images, block, seed)
        sheet = stage.plots_dir / "augmented.png"
        if stage.is_main:
            augmented_sheet(data, config.augment, label_space, seed).save(sheet)
        kept, history = fit(classifier, data, val, label_space, config, seed, stage.work_dir, stage.log_metrics)

        if not stage.is_main:
            return
        with atomic_output(CLASSIFIER) as folder:
            kept.save(folder)
        metrics = selection_metrics(history)
        if getattr(config, "crop_weight", 0):  # a saved classifier also scores crops
            saved = load_classifier(CLASSIFIER, stage.device)
            metrics |= Validation(val, label_space, config.choose_on_seen).of(saved)
        for note in training_notes(metrics):
            log.warning(note)
        stage.save_metrics(metrics | {f"num_{name}_images": len(images.get(name, ())) for name in SOURCES})
        pd.DataFrame(history).to_csv(stage.plots_dir / "history.csv", index=False)
        stage.log_figures(sheet)


if __name__ == "__main__":
    main()
