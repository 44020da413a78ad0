"""Add labels to a trained classifier, for `tailorset add-label`: no stage of dvc.yaml, which would repeat the others.

Prompts, images, filter, training and thresholds are those of the stages, for the added labels only. The products are in
data/added/LABEL and models/added/LABEL; the classifier is registered as a new version, the challenger.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

import tailorset
from tailorset.classifiers import extend_classifier, load_classifier, saved_labels
from tailorset.commands.adding import NEEDED, NOTES, Addition, checked_space, earlier_folders, folder_name
from tailorset.datasets.reading.further_labels import with_further_labels
from tailorset.evaluation.comparison import clip_logits
from tailorset.evaluation.selection import best_candidate
from tailorset.filters.parts.report import added_metrics, decide_all, filtered_manifest, label_table, too_few
from tailorset.generation.quota import QuotaPlanner
from tailorset.generation.shard_store import ShardStore
from tailorset.inference.predictor import Provenance, model_files
from tailorset.inference.versions import CHALLENGER
from tailorset.progress import step
from tailorset.project.busy import yield_to_others
from tailorset.project.layout import (
    ADDED_DATA,
    ADDED_MODELS,
    CLASSIFIER,
    FILTERED,
    FITTED_TO,
    PARAMS,
    REAL,
    SYNTHETIC,
    THRESHOLDS,
)
from tailorset.project.loops import draw_all, write_all
from tailorset.project.params import flatten, load_params, read_yaml
from tailorset.project.stage import Stage, run_stage
from tailorset.project.versions import ADDED
from tailorset.prompts.files import read_ledger, save_prompts
from tailorset.prompts.report import metrics as prompt_metrics
from tailorset.prompts.token_limit import TokenLimit
from tailorset.records import LabelSpace, read_prompts
from tailorset.registry.grown import Grown, Measured, measure_grown
from tailorset.registry.measurement import Measurement
from tailorset.registry.version import FILES, make_challenger, register
from tailorset.storage.annotated import Annotated, Collection, Several
from tailorset.storage.checksums import check_bound, digest
from tailorset.storage.files import atomic_output, write_json
from tailorset.thresholds.rules import Thresholds, score_logits
from tailorset.thresholds.sources import fit_thresholds
from tailorset.training.fit import fit
from tailorset.training.images import epoch_images, only_for, selection_set, training_sets
from tailorset.training.loop import predict

TOLERANCE = 1e-6  # of a score that must not change
NUM_STEPS = 4
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AdditionRun:
    """An addition under way. base: folder of the classifier that learns; data, models: of its products."""

    stage: Stage
    addition: Addition
    space: LabelSpace
    base: Path
    origin: Provenance

    @property
    def data(self) -> Path:
        return self.stage.work_dir / "data"

    @property
    def models(self) -> Path:
        return self.stage.work_dir / "models"

    @property
    def names(self) -> tuple[str, ...]:
        return self.addition.names

    @cached_property
    def title(self) -> str:
        """Name of the folders in data/added and models/added."""
        return folder_name(self.addition, self.stage.params.label_space)

    @cached_property
    def before(self) -> LabelSpace:
        """The labels of the classifier."""
        return saved_labels(self.base)[1]


def main() -> None:
    yield_to_others()
    addition = Addition.model_validate_json(sys.argv[1])
    with model_files(addition.model) as (base, origin):
        space = checked_space(addition, load_params(), base, *saved_labels(base))
        check_bound(base, base.parent / FITTED_TO.name)
        with run_stage("add_label", definition=definition(addition, base)) as stage:
            add(AdditionRun(stage, addition, space, base, origin))


def definition(addition: Addition, base: Path) -> dict[str, Any]:
    """Return the settings and the files that the result depends on, as dvc.yaml would."""
    code = Path(tailorset.__file__).parent
    asked = {f"add_label.{key}": value for key, value in addition.model_dump(mode="json").items()}
    files = [path for name in FILES if (path := base.parent / name).exists()]
    settings = flatten(read_yaml(PARAMS)) | asked | {"add_label.base": digest(*files)}
    return {"deps": [str(path) for path in (*NEEDED, code)], "params": settings}


def add(run: AdditionRun) -> None:
    """Make all products in the resume folder, then publish them."""
    title = ", ".join(run.names)
    with step(f"prompts of {title}", 1, NUM_STEPS):
        figures = write(run)
    with step(f"images of {title}", 2, NUM_STEPS):
        draw(run)
    figures |= select(run)
    with step(f"training of {title}", 3, NUM_STEPS):
        collection = collected(run)
        figures |= learn(run, collection)
    with step(f"measuring {title}", 4, NUM_STEPS):
        rules = fit_rules(run, collection)
        measured, largest = measure(run, collection)
    figures["added/largest_change"] = largest
    grown = Grown(run.origin.title, measured, rules, figures)
    grown.complete(run.models, run.base.parent, collection.photos("test"))
    notes = {"labels": list(run.names), "next_to": list(run.before.unseen), "to": run.origin.title}
    write_json(run.data / NOTES, notes | {"label_file": str(run.stage.params.label_space)})
    run.stage.log_metrics(figures)
    write_json(run.stage.report_dir / f"{run.title}.json", figures)
    publish(run, measured)
    print(*grown.lines(), "Next: `tailorset promote`, which compares it with the champion.", sep="\n")


def write(run: AdditionRun) -> dict[str, float]:
    """Write the prompts that request an added label, and return their figures."""
    stage, path = run.stage, run.data / "prompts.parquet"
    generator = stage.params.generator
    limit = TokenLimit(generator.plugin.build_tokenizers(generator.config))
    if not path.exists():
        save_prompts(write_all(stage, run.space, limit, run.names).prompts, path)
    ledger = read_ledger(stage.work_dir / "ledger.json")
    return prompt_metrics(ledger, limit)


def draw(run: AdditionRun) -> None:
    """Draw until the added labels have their quota; the others are drawn next to them only."""
    if (run.data / "synthetic").exists():
        return
    stage = run.stage
    config = stage.params.generate_images.for_added(run.space, run.names)
    prompts = read_prompts(run.data / "prompts.parquet")
    planner = QuotaPlanner.of(config, run.space.unseen, prompts, stage.params.seed)
    store = ShardStore(stage.shard_folder, from_photos=config.from_photos is not None)
    tally = draw_all(stage, run.space, config, planner, store)
    with atomic_output(run.data / "synthetic") as folder:
        store.assemble(tally.shards, folder)


def select(run: AdditionRun) -> dict[str, float]:
    """Filter the images, and return how many were drawn and kept.

    Raises:
        ValueError: too few images of a label were kept to learn it.
    """
    params = run.stage.params
    candidates = pd.read_parquet(run.data / "synthetic" / "manifest.parquet")
    requested, decisions, verdicts = decide_all(params.filter_images.build(run.space), candidates)
    with atomic_output(run.data / "filtered") as folder:
        folder.mkdir()
        filtered_manifest(candidates, decisions).to_parquet(folder / "manifest.parquet", index=False)
    labels = label_table(run.names, requested, decisions, verdicts)
    if problem := too_few(labels, decisions, params.validate_data.min_images_per_label):
        raise ValueError(
            f"{problem}. Choose a wording that draws better (--alias), or raise generate_images.max_images"
        )
    return added_metrics(labels, decisions)


def collected(run: AdditionRun) -> Collection:
    """Return the photos, with what is known of the added labels, and all generated images."""
    params, real = run.stage.params, run.data / "real"
    if not real.exists():
        try:
            dataset = params.prepare_dataset.build(run.space, params.seed)
        except ValueError as error:
            log.info("photos of val and test are not annotated for %s: %s", ", ".join(run.names), error)
            dataset = None
        with atomic_output(real) as folder:
            with_further_labels(REAL, run.space.names, dataset, folder)
    folders = [(folder / "synthetic", folder / "filtered") for folder in earlier_folders(run.before)]
    earlier = ((SYNTHETIC, FILTERED), *folders)
    return Collection(run.space, real, run.data / "synthetic", run.data / "filtered", earlier)


def learn(run: AdditionRun, collection: Collection) -> dict[str, float]:
    """Learn the added labels, with all generated images as their examples; return the metrics on val."""
    stage, block = run.stage, run.stage.params.train_classifier
    config = block.config.model_copy(update={"labels_per_step": None, "choose_on_seen": False})
    columns = run.space.columns(run.names)
    classifier = extend_classifier(config, run.base, run.space, stage.device)
    images = training_sets(collection, classifier.image_px, ["synthetic"], block.held_out_share)
    own = {name: only_for(part, columns) for name, part in images.items()}
    data = epoch_images(own, block, stage.params.seed)
    val = selection_set(collection, classifier.image_px, block.held_out_share, run.names)
    kept, history = fit(classifier, data, val, run.space, config, stage.params.seed, stage.work_dir, stage.log_metrics)
    with atomic_output(run.models / CLASSIFIER.name) as folder:
        kept.grown().save(folder)
    return best_candidate(history)


def fit_rules(run: AdditionRun, collection: Collection) -> Thresholds:
    """Fit the thresholds as the stage does, and keep all but those of the added labels."""
    params, classifier = run.stage.params, load_classifier(run.models / CLASSIFIER.name, run.stage.device)

    def logits(images: Annotated | Several) -> Tensor:
        return score_logits(predict(classifier, images.load(classifier.image_px).images))

    fitted = fit_thresholds(collection, logits, params.train_classifier.held_out_share, params.fit_thresholds)
    own = Thresholds.load(run.base.parent / THRESHOLDS.name)
    own.check_labels(run.before.names)
    return replace(own, rules=own.rules | {name: fitted.rules[name] for name in run.names})


def measure(run: AdditionRun, collection: Collection) -> tuple[Measurement, float]:
    """Measure the grown classifier on val and test, and the largest change of a score that must not change.

    Raises:
        ValueError: a score changed.
    """
    params, device = run.stage.params, run.stage.device
    base, grown = load_classifier(run.base, device), load_classifier(run.models / CLASSIFIER.name, device)
    clip = params.score_baselines.clip.load(device)
    texts = clip.encode_texts(run.space.names, params.clip.prompt_template)
    measured, largest = [], 0.0
    for split in ("val", "test"):
        photos = collection.photos(split)
        images = photos.load(grown.image_px).images
        scores = predict(grown, images)
        change = (scores[:, : len(base.labels)] - predict(base, images)).abs()
        largest = max(largest, float(change.max()))
        measured.append(Measured(photos, scores, clip_logits(clip.logits, images, texts)))
    if largest > TOLERANCE:
        raise ValueError(f"a score of the other labels changed by {largest:.1e}: the model was not added to")
    return measure_grown(measured[0], measured[1], run.space, run.before), largest


def publish(run: AdditionRun, measured: Measurement) -> None:
    """Put the products in place, let DVC track them, and register the version as the challenger.

    Raises:
        ValueError: MLflow does not answer.
    """
    tracker, name = run.stage.tracker, run.stage.params.model_name
    data, models = ADDED_DATA / run.title, ADDED_MODELS / run.title
    for source, target in ((run.data, data), (run.models, models)):
        with atomic_output(target) as folder:
            shutil.copytree(source, folder)
    track(data, models)
    tags = {ADDED: ", ".join(run.names), "added.to": run.origin.title, "added.data.sha256": digest(data)}
    with tracker.noted([f"a version of {name}"]):
        if tracker.is_up:
            number = register(name, tracker.run_id, run.space.names, measured, {}, models, tags)
            make_challenger(name, number)
            print(f"Registered {name} version {number}: models:/{name}@{CHALLENGER}")
    if not tracker.is_up:
        raise ValueError(f"nothing was registered, as MLflow failed ({tracker.cause}): run it again")


def track(*folders: Path) -> None:
    """Let DVC track folders, as `dvc add` does; a project without DVC goes on with a warning."""
    names = [str(folder) for folder in folders]
    command = [sys.executable, "-m", "dvc", "add", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        log.warning("DVC does not track %s (%s): `dvc add %s`", ", ".join(names), reason, " ".join(names))


if __name__ == "__main__":
    main()
