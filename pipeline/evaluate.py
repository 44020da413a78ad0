"""Compare the classifier with zero-shot CLIP on the test split: ZSL and GZSL, one harness for every row."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from tailorset.classifiers import Classifier, check_labels, load_classifier
from tailorset.clip.model import MEMORY_REMEDY, Clip, normalise_scores
from tailorset.compute.memory import ShrinkingBatches
from tailorset.evaluation.metrics import zero_shot_metrics
from tailorset.evaluation.report import Method, per_label_table, precision_recall_figure, prediction_captions
from tailorset.evaluation.score_table import score_table
from tailorset.images.sheets import contact_sheet
from tailorset.project.layout import CLASSIFIER, REAL, REPORTS, SCORES, THRESHOLDS
from tailorset.project.stage import Stage, run_stage
from tailorset.storage.files import write_json
from tailorset.storage.image_set import ImageSet, is_annotated, load_image_set, real_rows
from tailorset.thresholds.fitting import fit_platt, make_thresholds, one_sided
from tailorset.thresholds.measures import trust_figure, trust_metrics
from tailorset.thresholds.rules import Decisions, Thresholds, one_threshold, score_logits
from tailorset.training.loop import predict

ACCEPTANCE = tuple(f"acceptance/{when}/{who}" for when in ("before", "after") for who in ("discriminator", "judge"))
NUM_SHOWN, SHEET = 24, "test_images.png"  # test images on the sheet

log = logging.getLogger(__name__)


@torch.no_grad()
def clip_logits(clip: Clip, images: Tensor, text_features: Tensor, batch_size: int = 128) -> Tensor:
    """Zero-shot logits (N, L) for uint8 images and text features (L, D)."""
    batches = ShrinkingBatches(batch_size, "zero-shot CLIP", MEMORY_REMEDY)
    return batches.concatenated(lambda batch: clip.logits(batch.float() / 255, text_features), images)


def score_methods(stage: Stage, classifier: Classifier, test: ImageSet) -> list[Method]:
    """Ours, and the classifier's own backbone without any training: raw, by an ensemble of templates, normalised."""
    clip = stage.params.train_classifier.config.backbone.load(stage.device)
    names, template = stage.label_space.names, stage.params.clip.prompt_template
    texts = [clip.encode_texts(names, template), clip.encode_ensemble(names, stage.params.evaluate.templates)]
    logits, ensemble = clip_logits(clip, test.images, torch.cat(texts)).chunk(2, 1)
    return [
        Method("clip", "baseline/clip/", logits),
        Method("clip_ensemble", "baseline/clip_ensemble/", ensemble),
        Method("clip_normalised", "baseline/clip_normalised/", logits, normalise_scores),
        Method("ours", "", predict(classifier, test.images)),
    ]


def acceptance_metrics(path: Path) -> dict[str, float]:
    """How often discriminator and judge accept what the generator draws, before and after tuning.

    Raises:
        ValueError: tuning has not reported it.
    """
    metrics = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if missing := [key for key in ACCEPTANCE if key not in metrics]:
        raise ValueError(f"{path} lacks {missing}: run `dvc repro tune_text_encoder`")
    return {key: metrics[key] for key in ACCEPTANCE}


def threshold_rules(stage: Stage, classifier: Classifier) -> dict[str, Thresholds]:
    """The fitted rules, the one without fitting, and the bound: fitted on val with its real labels, if it shows all.

    Raises:
        ValueError: the fitted rules are for other labels.
    """
    names = stage.label_space.names
    fitted = Thresholds.load(THRESHOLDS)
    if fitted.labels != names:
        raise ValueError(f"{THRESHOLDS} is for {fitted.labels}, not {names}: run `dvc repro fit_thresholds`")
    rules = {"fitted": fitted, "one_threshold": one_threshold(names)}
    rows, targets = real_rows(REAL, "val", stage.label_space)
    if lacking := one_sided(targets, names):
        log.warning("no bound for the thresholds: val does not show with and without %s", ", ".join(lacking))
        return rules
    logits = score_logits(predict(classifier, load_image_set(rows, targets, REAL, classifier.image_px).images))
    max_risk = stage.params.fit_thresholds.max_risk
    return rules | {"real_labels": make_thresholds(names, fit_platt(logits, targets, names), logits, targets, max_risk)}


def report_trust(stage: Stage, rules: dict[str, Decisions], targets: Tensor) -> dict[str, float]:
    """`trust/<rule>/zsl|gzsl/...`, and the plot of the unseen labels."""
    unseen, metrics = stage.label_space.columns(stage.label_space.unseen), {}
    for name, decisions in rules.items():
        zsl = trust_metrics(decisions.columns(unseen), targets[:, unseen])
        gzsl = trust_metrics(decisions, targets)
        metrics |= {f"trust/{name}/zsl/{key}": value for key, value in zsl.items()}
        metrics |= {f"trust/{name}/gzsl/{key}": value for key, value in gzsl.items()}
    path = stage.plots_dir / "trust.png"
    trust_figure({name: rule.columns(unseen) for name, rule in rules.items()}, targets[:, unseen]).savefig(
        path, dpi=100
    )
    stage.log_figure(path)
    return metrics


def write_reports(stage: Stage, methods: list[Method], test: ImageSet) -> None:
    per_label_table(methods, test.targets, stage.label_space).to_csv(stage.report_dir / "per_label.csv", index=False)
    scores = [score_table(method.name, method.scores, test.ids, stage.label_space.names) for method in methods]
    pd.concat(scores).to_parquet(SCORES, index=False)
    curves, sheet = stage.plots_dir / "precision_recall.png", stage.plots_dir / SHEET
    if is_annotated(test.targets):
        precision_recall_figure(methods, test.targets, stage.label_space).savefig(curves, dpi=100)
        stage.log_figure(curves)
    shown = test.images[:NUM_SHOWN]
    captions = prediction_captions(methods[-1].scores[:NUM_SHOWN], test.targets[:NUM_SHOWN], stage.label_space)
    title = "test images: the three best scores, * = present; missed = present but not among them"
    contact_sheet(list(shown.permute(0, 2, 3, 1).numpy()), captions, columns=6, scale=1, title=title).save(sheet)
    stage.log_figure(sheet)


def measure(stage: Stage, classifier: Classifier, methods: list[Method], targets: Tensor) -> dict[str, float]:
    """Every method's ZSL and GZSL metrics, and how far the thresholds can be trusted."""
    metrics: dict[str, float] = {}
    for method in methods:
        values = zero_shot_metrics(
            method.scores, targets, stage.label_space, stage.params.evaluate.top_k, method.normalise
        )
        metrics |= {f"{method.prefix}{key}": value for key, value in values.items()}
    rules = {name: rule.apply(methods[-1].scores) for name, rule in threshold_rules(stage, classifier).items()}
    return metrics | report_trust(stage, rules, targets)


def main() -> None:
    with run_stage("evaluate") as stage:
        classifier = load_classifier(CLASSIFIER, stage.device)
        check_labels(classifier, stage.label_space.names)
        rows, targets = real_rows(REAL, "test", stage.label_space)
        test = load_image_set(rows, targets, REAL, classifier.image_px)
        methods = score_methods(stage, classifier, test)
        metrics = acceptance_metrics(REPORTS / "tune_text_encoder" / "metrics.json")
        if is_annotated(targets):
            metrics |= measure(stage, classifier, methods, targets)
        else:
            log.warning("no test photograph is annotated: nothing can be measured; %s shows some", SHEET)
        write_json(REPORTS / "metrics.json", metrics)
        stage.log_metrics(metrics)
        write_reports(stage, methods, test)


if __name__ == "__main__":
    main()
