"""One page on what became of each unseen label: prompts, images kept and rejected, test photos, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from tailorset.card.candidates import SCORERS, Candidates, join_candidates, look_at_images, stored_probabilities
from tailorset.card.confusions import Photos
from tailorset.card.facts import LabelCard, Options, label_card, shown_ids
from tailorset.card.page import data_uris, render
from tailorset.card.verdicts import Precision, ladder_says, precisions, verdict
from tailorset.evaluation.bootstrap import Interval
from tailorset.evaluation.score_table import read_scores
from tailorset.evaluation.selection import training_notes
from tailorset.filters import Filter
from tailorset.names import safe_file_name
from tailorset.project.layout import FILTERED, PROMPTS, REAL, REPORTS, SCORES, SYNTHETIC
from tailorset.project.params import flatten, named_models, read_yaml
from tailorset.project.stage import Stage, all_metrics, run_stage
from tailorset.records import AT_QUOTA
from tailorset.storage.files import atomic_output
from tailorset.storage.hub import origin
from tailorset.storage.image_set import real_rows

PAGE = REPORTS / "card" / "index.html"
OUTCOME = REPORTS / "generate_images" / "plots" / "pass_rate.csv"
LADDER = REPORTS / "ladder"  # of `make ladder`: a folder a label space


def main() -> None:
    with run_stage("data_card") as stage:
        candidates, photos = read_candidates(stage), read_photos(stage)
        gains, ladder = ladder_says(LADDER / safe_file_name(stage.label_space.name), flatten(read_yaml("params.yaml")))
        cards = make_cards(stage, candidates, photos, read_precisions(stage, photos), gains)
        ids = shown_ids(cards)
        generated = data_uris(candidates.table, ids["generated"], SYNTHETIC)
        real = data_uris(pd.read_parquet(REAL / "manifest.parquet"), ids["photos"], REAL)
        models = [origin(role, model) for role, model in named_models(stage.params)]
        about = facts(stage, candidates) | {"ladder": ladder}
        page = render(cards, about, models, generated, real, training_notes(all_metrics()))
        with atomic_output(PAGE) as path:
            path.write_text(page, encoding="utf-8")
        stage.tracker.log_file(PAGE)


def read_candidates(stage: Stage) -> Candidates:
    """Every candidate with the filter's decision, what it would be by the judge's scores, and both CLIPs' scores."""
    synthetic = pd.read_parquet(SYNTHETIC / "manifest.parquet")
    table = join_candidates(synthetic, pd.read_parquet(FILTERED / "manifest.parquet"))
    settings, space = stage.params.filter_images, stage.label_space
    rule: Filter = settings.build(space)
    scores = torch.from_numpy(np.stack(table["judge_logits"].to_list()))
    decisions = rule.decide(scores, table["requested"].to_list())
    table["judged"] = [decision.kept for decision in decisions]
    table["judge_confidence"] = [decision.confidence for decision in decisions]
    clips = {scorer: getattr(stage.params.clip, scorer).load(stage.device) for scorer in SCORERS}
    template = stage.params.clip.prompt_template
    texts = {scorer: clip.encode_texts(space.names, template) for scorer, clip in clips.items()}
    logits, signatures = look_at_images(table, SYNTHETIC, clips, texts)
    return Candidates(table, space, stored_probabilities(synthetic, space.unseen), logits, signatures)


def read_photos(stage: Stage) -> Photos:
    """The test photos as the classifier scored them in `evaluate`."""
    rows, targets = real_rows(REAL, "test", stage.label_space)
    scores = read_scores(SCORES, "ours", rows["image_id"], stage.label_space.names)
    return Photos(tuple(rows["image_id"]), scores.numpy(), targets.numpy())


def read_precisions(stage: Stage, photos: Photos) -> list[Precision]:
    """Of the unseen labels, in their order."""
    columns = [stage.label_space.index(label) for label in stage.label_space.unseen]
    targets, clip = torch.from_numpy(photos.targets), read_scores(SCORES, "clip", photos.ids, stage.label_space.names)
    num_resamples, seed = stage.params.data_card.num_resamples, stage.params.seed
    ours = torch.from_numpy(photos.scores)
    return precisions(ours[:, columns], clip[:, columns], targets[:, columns], num_resamples, seed)


def make_cards(
    stage: Stage,
    candidates: Candidates,
    photos: Photos,
    measured: list[Precision],
    gains: Mapping[str, Interval],
) -> list[LabelCard]:
    settings = stage.params.data_card
    options = Options(settings.num_shown, settings.near_duplicate, settings.low_pass_rate)
    prompts, shortfalls = pd.read_parquet(PROMPTS), read_shortfalls()
    return [
        label_card(
            label,
            candidates,
            prompts,
            photos,
            shortfalls.get(label, ""),
            precision,
            verdict(gains.get(label), settings.min_gain),
            options,
        )
        for label, precision in zip(stage.label_space.unseen, measured, strict=True)
    ]


def read_shortfalls() -> dict[str, str]:
    """What generation says of the labels that missed their quota."""
    table = pd.read_csv(OUTCOME)
    missed = table[table["outcome"] != AT_QUOTA]
    return dict(zip(missed["label"], missed["outcome"], strict=True))


def facts(stage: Stage, candidates: Candidates) -> dict[str, object]:
    """What the page says of the run; nothing of when or where, so that the same run gives the same page."""
    params, space, settings = stage.params, stage.label_space, stage.params.data_card
    rule = ", ".join(f"{key} {value}" for key, value in params.filter_images.config.model_dump().items())
    return {
        "label space": f"{space.name}: {len(space.unseen)} unseen, {len(space.seen)} seen",
        "candidates": f"{len(candidates.table)} drawn, {int(candidates.kept.sum())} kept",
        "filter": f"{params.filter_images.name}, {rule}",
        "hard to draw": f"under quota, or a pass rate below {settings.low_pass_rate:.0%}",
        "near-duplicates": f"pixels correlate by {settings.near_duplicate} or more",
        "worth generating": f"yes if all of the interval lies above {settings.min_gain:g} AP, no if none of it does",
    }


if __name__ == "__main__":
    main()
