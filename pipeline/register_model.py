"""Register the evaluated classifier as a new version of the model and move the alias `challenger` to it.

A point of a sweep, which DVC runs in a copy of the project, does not move `challenger`: that is the project's version.
The alias `champion` is moved by `tailorset promote` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tailorset.evaluation.results import CLIP, OURS
from tailorset.evaluation.score_table import read_scores
from tailorset.inference.versions import CHALLENGER
from tailorset.project.layout import (
    CLASSIFIER,
    EXAMPLES,
    FILTERED,
    FITTED_TO,
    MEASURED,
    MODEL_CARD,
    PER_LABEL,
    REAL,
    REPORTS,
    SCORES,
    SYNTHETIC,
    THRESHOLDS,
    is_own_folder,
)
from tailorset.project.params import flatten, read_yaml
from tailorset.project.stage import Stage, all_metrics, run_stage
from tailorset.registry.examples import write_examples
from tailorset.registry.measurement import Measurement, measure, with_val
from tailorset.registry.model_card import gather, model_card
from tailorset.registry.parent_run import (
    SHEETS_FOLDER,
    SMALL_FOLDER,
    data_sets,
    description,
    headline,
    sheets,
    shrink,
)
from tailorset.registry.version import check_made_for, make_challenger, register
from tailorset.storage.annotated import Collection
from tailorset.storage.checksums import check_bound
from tailorset.storage.files import atomic_output
from tailorset.thresholds.rules import Thresholds

DATA_CARD = REPORTS / "card" / "index.html"


def main() -> None:
    with run_stage("register_model") as stage:
        space = stage.label_space
        weights_bytes = sum(file.stat().st_size for file in CLASSIFIER.iterdir())
        stage.save_metrics({"register/num_labels": len(space.names), "register/weights_bytes": weights_bytes})
        thresholds = Thresholds.load(THRESHOLDS)
        check_made_for(space, thresholds)
        check_bound(CLASSIFIER, FITTED_TO)
        metrics, photos = all_metrics(), Collection(space, REAL, SYNTHETIC, FILTERED)
        test, val = photos.photos("test"), photos.photos("val")
        stored = read_scores(SCORES, test.rows["image_id"], space.names)
        scores = {row: stored[row.method] for row in (CLIP, OURS)}
        measured = with_val(measure(scores[OURS], scores[CLIP], test, space), val, space, metrics)
        facts = gather(stage.params, space, thresholds, metrics, scores, test.targets)
        with atomic_output(MEASURED) as path:
            measured.save(path)
        with atomic_output(EXAMPLES) as path:
            write_examples(test, path)
        with atomic_output(MODEL_CARD) as path:
            path.write_text(model_card(facts), encoding="utf-8")
        with stage.tracker.noted([f"a version of {stage.params.model_name}"]):
            stage.tracker.summarise(flatten(read_yaml("params.yaml")), headline(metrics) | metrics)
            if stage.tracker.is_up:
                register_and_present(stage, measured, metrics)


def register_and_present(stage: Stage, measured: Measurement, metrics: Mapping[str, float]) -> None:
    """Register the version, and show results, data and model on the parent run of this execution."""
    name = stage.params.model_name
    number = register(name, stage.tracker.run_id, stage.label_space.names, measured, metrics)
    if is_own_folder(stage.root):
        make_challenger(name, number)
        print(f"Registered {name} version {number}: models:/{name}@{CHALLENGER}")
    else:
        print(f"Registered {name} version {number}: a point of a sweep, {CHALLENGER} stays what it was")
    files = [path for path in (MODEL_CARD, DATA_CARD, SCORES, PER_LABEL) if path.exists()]
    pictures, run = sheets(), (stage.tracker.experiment_id, stage.tracker.parent_id)
    text = description(metrics, (name, number), run, pictures)
    with TemporaryDirectory() as folder:
        copies = shrink(pictures, Path(folder))
        everything = {"": files, SHEETS_FOLDER: pictures.values(), SMALL_FOLDER: copies}
        stage.tracker.present(text, data_sets(Path("dvc.lock")), everything)


if __name__ == "__main__":
    main()
