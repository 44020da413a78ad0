"""Write the data card: prompts, kept and rejected images, test photos and a verdict per unseen label, on one page."""

from __future__ import annotations

import pandas as pd

from tailorset.card.assembly import make_cards, own_photo_facts, run_facts
from tailorset.card.candidates import Candidates, collect
from tailorset.card.confusions import Photos
from tailorset.card.facts import shown_ids
from tailorset.card.page import data_uris, render
from tailorset.card.verdicts import ladder_result
from tailorset.evaluation.results import CLIP, OURS
from tailorset.evaluation.score_table import read_scores
from tailorset.evaluation.selection import training_notes
from tailorset.project.layout import FILTERED, PROMPTS, REAL, REPORTS, SCORES, SYNTHETIC
from tailorset.project.licences import on_cards, parts_of, uses
from tailorset.project.params import flatten, read_yaml
from tailorset.project.stage import Stage, all_metrics, run_stage
from tailorset.records import AT_QUOTA
from tailorset.records.names import safe_file_name
from tailorset.storage.files import atomic_output
from tailorset.storage.image_set import real_rows
from tailorset.storage.label_tables import read_label_table

PAGE = REPORTS / "card" / "index.html"
OUTCOME = REPORTS / "generate_images" / "plots" / "pass_rate.csv"
LADDER = REPORTS / "ladder"  # of `make ladder`: one folder per label space


def main() -> None:
    with run_stage("data_card") as stage:
        params, space, settings = stage.params, stage.label_space, stage.params.data_card
        candidates = read_candidates(stage)
        rows, targets = real_rows(REAL, "test", space)
        scores = read_scores(SCORES, rows["image_id"], space.names)
        ours, clip = (scores[row.method] for row in (OURS, CLIP))
        photos = Photos(tuple(rows["image_id"]), ours.numpy(), targets.numpy())
        gains, ladder = ladder_result(LADDER / safe_file_name(space.name), flatten(read_yaml("params.yaml")))
        prompts, shortfalls = pd.read_parquet(PROMPTS), read_shortfalls()
        cards = make_cards(candidates, prompts, photos, clip, shortfalls, gains, settings, params.seed)
        ids = shown_ids(cards)
        generated = data_uris(candidates.table, ids["generated"], SYNTHETIC)
        real = data_uris(pd.read_parquet(REAL / "manifest.parquet"), ids["photos"], REAL)
        parts = on_cards(parts_of(params, ask_hub=True))
        captions, from_photos = params.write_prompts.captions, params.generate_images.from_photos
        own = own_photo_facts(
            candidates.table,
            params.tune_unet.num_photos if params.tune_unet.num_updates else 0,
            captions.num_photos if captions else 0,
            from_photos.strength if from_photos else None,
        )
        facts = run_facts(candidates, params.filter_images, settings) | own | {"ladder": ladder} | uses(parts)
        rows = [(part.role, part.title, part.revision, *part.stated) for part in parts]
        page = render(cards, facts, rows, generated, real, training_notes(all_metrics()))
        with atomic_output(PAGE) as path:
            path.write_text(page, encoding="utf-8")
        stage.tracker.log_file(PAGE)


def read_candidates(stage: Stage) -> Candidates:
    """Read every candidate with the filter's decision, the decision by the judge's scores, and both CLIPs' scores."""
    clip, rule = stage.params.clip, stage.params.filter_images.build(stage.label_space)
    return collect(
        pd.read_parquet(SYNTHETIC / "manifest.parquet"),
        pd.read_parquet(FILTERED / "manifest.parquet"),
        SYNTHETIC,
        stage.label_space,
        rule.decide,
        {"discriminator": clip.discriminator.load(stage.device), "judge": clip.judge.load(stage.device)},
        clip.prompt_template,
    )


def read_shortfalls() -> dict[str, str]:
    """Read why labels missed their quota, as generation reports it."""
    table = read_label_table(OUTCOME)
    missed = table[table["outcome"] != AT_QUOTA]
    return dict(zip(missed["label"], missed["outcome"], strict=True))


if __name__ == "__main__":
    main()
