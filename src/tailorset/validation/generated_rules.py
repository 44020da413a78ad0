"""Rules on the generated images: candidates as drawn, the filter's decisions, and the images kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tailorset.records import COPIES, MIN_PIXEL_STD, LabelSpace
from tailorset.records.verdicts import KEPT, RELABELLED
from tailorset.validation.products import Products
from tailorset.validation.rules import DataRule, Table, between, blank, listed, some_rows, unique, where

REDRAW = "run generate_images again"
LESS_CONTRAST = "run generate_images with another generator.dtype or guidance_scale"


def candidate_table(products: Products, num_unseen: int) -> Table:
    synthetic, prompts = products.synthetic, products.prompts.drop_duplicates("prompt_id").set_index("prompt_id")
    wanted = synthetic["prompt_id"].map(prompts["labels"].map(listed))
    text = synthetic["prompt_id"].map(prompts["text"])
    frame = _drawn_columns(synthetic, products.real, num_unseen).assign(
        no_prompt=where(wanted.isna(), "its prompt does not exist"),
        other_text=where(text.notna() & text.ne(synthetic["prompt"]), "its prompt has another text"),
        other_labels=where(wanted.notna() & wanted.ne(synthetic["labels"].map(listed)), "labels are not its prompt's"),
    )
    rules = [
        some_rows("there are candidates", REDRAW),
        *_drawn_rules("candidate"),
        blank("every candidate has its prompt", "no_prompt", REDRAW),
        blank("candidates are drawn from their prompt's text", "other_text", REDRAW),
        blank("candidates request their prompt's labels", "other_labels", REDRAW),
    ]
    return Table("candidates", frame, rules)


def negative_table(negatives: pd.DataFrame, products: Products, label_space: LabelSpace) -> Table:
    """Rules on the images of seen labels, which training takes without a filter."""
    frame = _drawn_columns(negatives, products.real, len(label_space.unseen)).assign(
        candidate_id=where(negatives["image_id"].isin(products.synthetic["image_id"]), "id of a candidate"),
        shows_unseen=[_unseen_problem(labels, label_space) for labels in negatives["labels"]],
        pixel_std=negatives["pixel_std"],
    )
    rules = [
        *_drawn_rules("negative"),
        blank("negatives share no id with candidates", "candidate_id", REDRAW),
        blank("negatives request seen labels without an unseen parent or child", "shows_unseen", REDRAW),
        between("no negative is black or constant", "pixel_std", MIN_PIXEL_STD, 1, LESS_CONTRAST, "warning"),
    ]
    return Table("negatives", frame, rules)


def source_table(products: Products) -> Table:
    """Rules on the photos that images start from."""
    synthetic, real = products.synthetic, products.real
    split = synthetic["photo_id"].map(real.drop_duplicates("image_id").set_index("image_id")["split"])
    copies = set(synthetic.loc[synthetic[COPIES].astype(bool), "image_id"])
    frame = synthetic[["image_id"]].assign(
        row=synthetic["image_id"],
        measured=where(split.isin(["val", "test"]), "its photo is one of val or test"),
        kept_copy=where(synthetic["image_id"].isin(copies & set(products.kept["image_id"])), "copies its photo"),
    )
    return Table(
        "source_photos",
        frame,
        [
            blank("no image starts from a photo of val or test", "measured", "run generate_images again"),
            blank("no kept image is a near-duplicate of its photo", "kept_copy", "run filter_images again"),
        ],
    )


def decision_table(products: Products, label_space: LabelSpace) -> Table:
    filtered, synthetic = products.filtered, products.synthetic.drop_duplicates("image_id").set_index("image_id")
    asked = dict(zip(synthetic.index, synthetic["labels"], strict=True))
    requested = [asked.get(image_id, ()) for image_id in filtered["image_id"]]
    decided = zip(filtered["kept"], filtered["labels"], requested, filtered["reason"], strict=True)
    reasoned = zip(filtered["kept"], filtered["reason"], strict=True)
    digest = filtered["image_id"].map(synthetic["sha256"])
    text = filtered["image_id"].map(synthetic["prompt"])
    frame = filtered[["image_id"]].assign(
        row=filtered["image_id"],
        confidence=filtered["confidence"].fillna(-1.0),
        stranger=where(digest.isna(), "no such candidate"),
        changed=where(digest.notna() & digest.ne(filtered["sha256"]), "sha256 is not the candidate's"),
        other_prompt=where(text.notna() & text.ne(filtered["prompt"]), "not the candidate's"),
        bad_labels=[_label_problem(*row, label_space.unseen) for row in decided],
        bad_reason=[_reason_problem(*row) for row in reasoned],
    )
    again = "run filter_images again"
    count = {"value": len(products.synthetic)}
    return Table(
        "filtered",
        frame,
        [
            DataRule("every candidate is decided on", "ExpectTableRowCountToEqual", count, again),
            unique("each candidate has one row", "image_id", again),
            blank("rows are candidates", "stranger", again),
            blank("images are the candidates' own", "changed", again),
            blank("prompts are the candidates' own", "other_prompt", again),
            blank("labels are unseen ones, and include the requested", "bad_labels", again),
            blank("every rejection has a reason", "bad_reason", again),
            between("confidence is a probability", "confidence", 0, 1, again),
        ],
    )


def kept_table(products: Products) -> Table:
    kept = products.kept
    spread = products.synthetic.drop_duplicates("image_id").set_index("image_id")["pixel_std"]
    pixel_std = kept["image_id"].map(spread).fillna(-1.0)
    frame = kept[["image_id", "sha256"]].assign(row=kept["image_id"], pixel_std=pixel_std)
    fewer = f"raise filter_images.threshold, or {LESS_CONTRAST}"
    return Table(
        "kept_images",
        frame,
        [
            some_rows("some images are kept", "lower filter_images.threshold, or tune the text encoder for longer"),
            unique("kept images differ", "sha256", "check the generator: it draws the same image twice"),
            between("no kept image is black or constant", "pixel_std", MIN_PIXEL_STD, 1, fewer),
        ],
    )


def _drawn_columns(drawn: pd.DataFrame, real: pd.DataFrame, num_unseen: int) -> pd.DataFrame:
    """Return the columns that `_drawn_rules` read, for rows of the generator's manifest."""
    twin = drawn["sha256"].map(real.drop_duplicates("sha256").set_index("sha256")["image_id"]).fillna("")
    scores = zip(drawn["discriminator_logits"], drawn["judge_logits"], strict=True)
    return drawn[["image_id", "sha256", "seed"]].assign(
        row=drawn["image_id"],
        real_bytes=twin,
        real_id=where(drawn["image_id"].isin(real["image_id"]), "id of a real image"),
        bad_scores=[_score_problem(num_unseen, *pair) for pair in scores],
    )


def _drawn_rules(kind: str) -> list[DataRule]:
    """Return the rules on every image that the generator drew; kind: what it is called."""
    repeated = "check the generator: it draws the same image twice"
    copied = "check the generator: it returns images of the data set"
    broken = "check generator.dtype and the CLIP weights, then run generate_images again"
    return [
        unique("image ids differ", "image_id", REDRAW),
        unique("seeds differ", "seed", REDRAW, "warning"),
        unique(f"{kind}s differ", "sha256", repeated, "warning"),
        blank(f"no {kind} is a real image", "real_bytes", copied),
        blank(f"{kind}s share no id with real images", "real_id", REDRAW),
        blank("scores are finite, one per unseen label", "bad_scores", broken),
    ]


def _unseen_problem(labels: Sequence[str], label_space: LabelSpace) -> str:
    shown = {kin for name in labels for kin in label_space.unseen_kin.get(name, ())}
    return f"may show {listed(shown)}" if shown else ""


def _score_problem(num_unseen: int, discriminator: NDArray[np.floating], judge: NDArray[np.floating]) -> str:
    problems = []
    for scorer, scores in (("discriminator", discriminator), ("judge", judge)):
        if scores is None or len(scores) != num_unseen:
            problems.append(f"{scorer}: {0 if scores is None else len(scores)} scores, not {num_unseen}")
        elif not np.isfinite(scores).all():
            problems.append(f"{scorer}: not finite")
    return "; ".join(problems)


def _label_problem(
    kept: bool, labels: Sequence[str], requested: Sequence[str], reason: str, unseen: Sequence[str]
) -> str:
    if not kept:
        return "rejected, but has labels" if len(labels) else ""
    if foreign := set(labels) - set(unseen):
        return f"not unseen: {listed(foreign)}"
    if reason == RELABELLED:
        return "" if len(labels) else "relabelled, but without a label"
    missing = set(requested) - set(labels)
    return f"requested, but not among its labels: {listed(missing)}" if missing else ""


def _reason_problem(kept: bool, reason: str | None) -> str:
    if kept:
        return "" if reason in (KEPT, RELABELLED) else f"kept, but the reason is {reason!r}"
    return "" if reason and reason not in (KEPT, RELABELLED) else f"rejected, but the reason is {reason!r}"
