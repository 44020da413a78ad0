"""Compare the classifier with zero-shot CLIP on the test split: ZSL and GZSL, measured alike for every method."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from torch import Tensor

from tailorset.classifiers import check_labels, load_classifier
from tailorset.evaluation.comparison import Method, all_scores, comparison_metrics, per_label_table, read_baselines
from tailorset.evaluation.report import precision_recall_figure, prediction_sheet
from tailorset.evaluation.results import ACCEPTANCE, OURS
from tailorset.project.layout import (
    BASELINE_SCORES,
    CLASSIFIER,
    FILTERED,
    PER_LABEL,
    REAL,
    REPORTS,
    SCORES,
    SYNTHETIC,
    THRESHOLDS,
)
from tailorset.project.stage import Stage, run_stage
from tailorset.storage.annotated import Annotated, Collection
from tailorset.storage.files import atomic_output, read_metrics, write_json
from tailorset.storage.image_set import ImageSet, is_annotated
from tailorset.thresholds.comparison import compared_rules, rule_metrics
from tailorset.thresholds.measures import trust_figure
from tailorset.thresholds.rules import Decisions, Thresholds, score_logits
from tailorset.training.loop import predict

SHEET = "test_images.png"
log = logging.getLogger(__name__)


def main() -> None:
    with run_stage("evaluate") as stage:
        space = stage.label_space
        classifier = load_classifier(CLASSIFIER, stage.device)
        check_labels(classifier, space.names)
        collection = Collection(space, REAL, SYNTHETIC, FILTERED)
        test = collection.photos("test").load(classifier.image_px)
        ours = Method(OURS, predict(classifier, test.images))
        methods = [*read_baselines(BASELINE_SCORES, test.ids, space.names), ours]

        def logits(images: Annotated) -> Tensor:
            return score_logits(predict(classifier, images.load(classifier.image_px).images))

        tuning = read_metrics(REPORTS / "tune_text_encoder" / "metrics.json")
        metrics = {key: value for key, value in tuning.items() if key.startswith(ACCEPTANCE)}
        metrics["evaluate/photos"] = len(test)
        if is_annotated(test.targets):
            metrics |= comparison_metrics(methods, test.targets, space, stage.params.evaluate.top_k)
            fitted = Thresholds.load(THRESHOLDS)
            fitted.check_labels(space.names)
            rules = compared_rules(fitted, collection.photos("val"), logits, stage.params.fit_thresholds.max_risk)
            decisions = {name: rule.apply(methods[-1].scores) for name, rule in rules.items()}
            metrics |= rule_metrics(decisions, test.targets, space.columns(space.unseen))
            plot_decisions(stage, decisions, test.targets)
        else:
            log.warning("no test photo is annotated: nothing can be measured; %s shows some", SHEET)
        write_json(REPORTS / "metrics.json", metrics)
        stage.log_metrics(metrics)
        write_reports(stage, methods, test)


def plot_decisions(stage: Stage, decisions: Mapping[str, Decisions], targets: Tensor) -> None:
    """Plot the decisions on the unseen labels."""
    unseen, path = stage.label_space.columns(stage.label_space.unseen), stage.plots_dir / "trust.png"
    of_unseen = {name: decided.columns(unseen) for name, decided in decisions.items()}
    trust_figure(of_unseen, targets[:, unseen]).savefig(path, dpi=100)
    stage.log_figures(path)


def write_reports(stage: Stage, methods: Sequence[Method], test: ImageSet) -> None:
    """Write the tables of labels and scores, the curves, and a sheet of test images with our predictions."""
    space, curves, sheet = stage.label_space, stage.plots_dir / "precision_recall.png", stage.plots_dir / SHEET
    per_label_table(methods, test.targets, space).to_csv(PER_LABEL, index=False)
    with atomic_output(SCORES) as partial:
        all_scores(methods, test.targets, test.ids, space.names).to_parquet(partial, index=False)
    if is_annotated(test.targets):
        precision_recall_figure(methods, test.targets, space).savefig(curves, dpi=100)
        stage.log_figures(curves)
    prediction_sheet(test, methods[-1].scores, space).save(sheet)
    stage.log_figures(sheet)


if __name__ == "__main__":
    main()
