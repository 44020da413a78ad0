"""What must hold for the products that training reads: one table of rows and rules for each of them.

Letters: N rows, L labels, U unseen labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tailorset.prompts.contract import main_cause
from tailorset.records import (
    FILTERED_COLUMNS,
    MIN_PIXEL_STD,
    NOT_ANNOTATED,
    PROMPT_COLUMNS,
    REAL_COLUMNS,
    SPLITS,
    SYNTHETIC_COLUMNS,
    LabelSpace,
)
from tailorset.validation.rules import Rule, Table, between, blank, listed, named, one_of, some_rows, unique, where


@dataclass(frozen=True)
class Products:
    """The manifests of every stage before training, as read from parquet."""

    prompts: pd.DataFrame
    real: pd.DataFrame
    targets: pd.DataFrame
    synthetic: pd.DataFrame
    filtered: pd.DataFrame


def layout_tables(products: Products, label_space: LabelSpace) -> list[Table]:
    """First of all, every manifest has the columns that the other rules look at."""
    columns = {
        "prompts": PROMPT_COLUMNS,
        "real": REAL_COLUMNS,
        "targets": ("image_id", *label_space.names),
        "synthetic": SYNTHETIC_COLUMNS,
        "filtered": FILTERED_COLUMNS,
    }
    return [_layout(name, getattr(products, name), expected) for name, expected in columns.items()]


def content_tables(
    products: Products,
    label_space: LabelSpace,
    max_template_share: float,
    min_images_per_label: int,
    annotated_unseen: bool = False,
    refused: Mapping[str, float] | None = None,
) -> list[Table]:
    """All rules on the content; the manifests must have passed `layout_tables`.

    annotated_unseen: unseen labels may be annotated in train images, as for measuring what full supervision reaches.
    refused: replies of the LLM that were refused, by reason.
    """
    return [
        _prompts(products.prompts, label_space, max_template_share, refused or {}),
        _real(products.real, products.targets, label_space),
        _targets(products.real, products.targets, label_space, annotated_unseen),
        _candidates(products, len(label_space.unseen)),
        _filtered(products, label_space),
        _kept(products),
        _seen_labels(products, label_space),
        _unseen_labels(products, label_space, min_images_per_label),
    ]


def _layout(name: str, frame: pd.DataFrame, columns: Sequence[str]) -> Table:
    arguments = {"column_set": list(columns), "exact_match": True}
    rule = Rule("has exactly its columns", "ExpectTableColumnsToMatchSet", arguments, "run its stage again")
    return Table(f"{name}_columns", frame, [rule])


def _prompts(
    prompts: pd.DataFrame, label_space: LabelSpace, max_template_share: float, refused: Mapping[str, float]
) -> Table:
    frame = prompts[["prompt_id", "text", "origin"]].assign(
        row=prompts["prompt_id"],
        unnamed=[
            listed(set(labels) & set(label_space.names) - label_space.named_in(text))
            for text, labels in zip(prompts["text"], prompts["labels"], strict=True)
        ],
        not_unseen=[listed(set(labels) - set(label_space.unseen)) for labels in prompts["labels"]],
        confused=where(prompts["labels"].map(frozenset).isin(label_space.confusable), "a confusable pair"),
        from_template=prompts["origin"].eq("template").astype(float),
    )
    rewrite = "run write_prompts again"
    cause = main_cause(refused) if any(refused.values()) else "choose a larger LLM, more write_prompts.max_attempts"
    fewer = f"{cause}, or raise validate_data.max_template_share"
    share = {"column": "from_template", "min_value": 0.0, "max_value": max_template_share}
    return Table(
        "prompts",
        frame,
        [
            some_rows("there are prompts", rewrite),
            unique("prompt ids differ", "prompt_id", rewrite),
            unique("prompt texts differ", "text", "raise write_prompts.llm.temperature for more variety", "warning"),
            one_of("origin is known", "origin", ["llm", "retry", "template"], rewrite),
            blank(
                "every prompt names its labels", "unnamed", "run write_prompts again, or add the wording as an alias"
            ),
            blank("prompts ask for unseen labels only", "not_unseen", "run write_prompts again for this label space"),
            blank("prompts ask for no confusable pair", "confused", "run write_prompts again for this label space"),
            Rule("few prompts are templates", "ExpectColumnMeanToBeBetween", share, fewer),
        ],
    )


def _real(real: pd.DataFrame, targets: pd.DataFrame, label_space: LabelSpace) -> Table:
    frame = real[["image_id", "split", "sha256", "width", "height"]].assign(
        row=real["image_id"],
        pixel_std=real["pixel_std"].fillna(-1.0),
        pixel_mean=real["pixel_mean"].fillna(-1.0),
        splits_of_id=_other_splits(real, "image_id"),
        splits_of_bytes=_other_splits(real, "sha256"),
        no_targets=where(~real["image_id"].isin(targets["image_id"]), "no row in targets.parquet"),
    )
    needed = SPLITS if label_space.seen else ("val", "test")  # nothing to learn from photographs without a seen label
    splits = {"column": "split", "value_set": list(needed)}
    overlap = "correct the split in the data set plug-in: an image may be in one split only"
    drop = "leave these images out in the data set plug-in"
    rewrite = "run prepare_dataset again"
    return Table(
        "real_images",
        frame,
        [
            unique("image ids differ", "image_id", overlap),
            Rule("every split has images", "ExpectColumnDistinctValuesToEqualSet", splits, rewrite),
            blank("splits share no image id", "splits_of_id", overlap),
            blank("splits share no image bytes", "splits_of_bytes", overlap),
            unique("images differ", "sha256", drop, "warning"),
            blank("every image has targets", "no_targets", rewrite),
            between("images have a width", "width", 1, None, rewrite),
            between("images have a height", "height", 1, None, rewrite),
            between("mean brightness is a number in [0, 1]", "pixel_mean", 0, 1, rewrite),
            between("no image is black or constant", "pixel_std", MIN_PIXEL_STD, 1, drop),
        ],
    )


def _targets(real: pd.DataFrame, targets: pd.DataFrame, label_space: LabelSpace, annotated_unseen: bool) -> Table:
    split = targets["image_id"].map(real.drop_duplicates("image_id").set_index("image_id")["split"])
    train = split.eq("train").to_numpy()[:, None]  # (N, 1)
    values = targets[list(label_space.names)].to_numpy()  # (N, L)
    unseen = np.array([not label.seen for label in label_space.labels])  # (L,)
    annotated = values != NOT_ANNOTATED
    is_measured = annotated.any() or bool(label_space.seen)  # else photographs are only looked at
    frame = targets[["image_id"]].assign(
        row=targets["image_id"],
        stranger=where(split.isna(), "no image in manifest.parquet"),
        leaked=named(annotated & train & unseen, label_space.names),
        unknown=named(~np.isin(values, (0, 1, NOT_ANNOTATED)), label_space.names),
        incomplete=named(~annotated & ~train & is_measured, label_space.names),
        unused=where(~annotated.any(axis=1) & is_measured, "no label is annotated"),
    )
    rewrite = "run prepare_dataset again"
    return Table(
        "label_matrix",
        frame,
        [
            unique("each image has one row", "image_id", rewrite),
            blank("each row has its image", "stranger", rewrite),
            blank(
                "train images are not annotated for unseen labels",
                "leaked",
                "let the data set plug-in give targets "
                "of train images for seen labels only; to measure full supervision, set validate_data.annotated_unseen",
                "warning" if annotated_unseen else "critical",
            ),
            blank("targets are 1, 0 or -1", "unknown", rewrite),
            blank(
                "val and test images are annotated for all labels",
                "incomplete",
                "leave these images out in the data set plug-in: evaluation needs the whole truth",
            ),
            blank("every image is annotated", "unused", "leave these images out in the data set plug-in", "warning"),
        ],
    )


def _candidates(products: Products, num_unseen: int) -> Table:
    synthetic, real = products.synthetic, products.real
    twin = synthetic["sha256"].map(real.drop_duplicates("sha256").set_index("sha256")["image_id"]).fillna("")
    asked = products.prompts.drop_duplicates("prompt_id").set_index("prompt_id")["labels"].map(listed)
    wanted = synthetic["prompt_id"].map(asked)
    scores = zip(synthetic["discriminator_logits"], synthetic["judge_logits"], strict=True)
    frame = synthetic[["image_id", "sha256", "seed"]].assign(
        row=synthetic["image_id"],
        no_prompt=where(wanted.isna(), "its prompt does not exist"),
        other_labels=where(wanted.notna() & wanted.ne(synthetic["labels"].map(listed)), "labels are not its prompt's"),
        real_bytes=twin,
        real_id=where(synthetic["image_id"].isin(real["image_id"]), "id of a real image"),
        bad_scores=[_score_problem(num_unseen, *pair) for pair in scores],
    )
    redraw = "run generate_images again"
    return Table(
        "candidates",
        frame,
        [
            some_rows("there are candidates", redraw),
            unique("image ids differ", "image_id", redraw),
            unique("seeds differ", "seed", redraw, "warning"),
            unique("candidates differ", "sha256", "check the generator: it draws the same image twice", "warning"),
            blank("every candidate has its prompt", "no_prompt", redraw),
            blank("candidates request their prompt's labels", "other_labels", redraw),
            blank(
                "no candidate is a real image", "real_bytes", "check the generator: it returns images of the data set"
            ),
            blank("candidates share no id with real images", "real_id", redraw),
            blank(
                "scores are finite, one per unseen label",
                "bad_scores",
                "check generator.dtype and the CLIP weights, then run generate_images again",
            ),
        ],
    )


def _filtered(products: Products, label_space: LabelSpace) -> Table:
    filtered, synthetic = products.filtered, products.synthetic.drop_duplicates("image_id").set_index("image_id")
    asked = dict(zip(synthetic.index, synthetic["labels"], strict=True))
    requested = [asked.get(image_id, ()) for image_id in filtered["image_id"]]
    decided = zip(filtered["kept"], filtered["labels"], requested, strict=True)
    reasoned = zip(filtered["kept"], filtered["reason"], strict=True)
    digest = filtered["image_id"].map(synthetic["sha256"])
    frame = filtered[["image_id"]].assign(
        row=filtered["image_id"],
        confidence=filtered["confidence"].fillna(-1.0),
        stranger=where(digest.isna(), "no such candidate"),
        changed=where(digest.notna() & digest.ne(filtered["sha256"]), "sha256 is not the candidate's"),
        bad_labels=[_label_problem(*row, label_space.unseen) for row in decided],
        bad_reason=[_reason_problem(*row) for row in reasoned],
    )
    again = "run filter_images again"
    count = {"value": len(products.synthetic)}
    return Table(
        "filtered",
        frame,
        [
            Rule("every candidate is decided on", "ExpectTableRowCountToEqual", count, again),
            unique("each candidate has one row", "image_id", again),
            blank("rows are candidates", "stranger", again),
            blank("images are the candidates' own", "changed", again),
            blank("labels are unseen ones, and include the requested", "bad_labels", again),
            blank("every rejection has a reason", "bad_reason", again),
            between("confidence is a probability", "confidence", 0, 1, again),
        ],
    )


def _kept(products: Products) -> Table:
    kept = products.filtered[products.filtered["kept"].astype(bool)]
    spread = products.synthetic.drop_duplicates("image_id").set_index("image_id")["pixel_std"]
    pixel_std = kept["image_id"].map(spread).fillna(-1.0)
    frame = kept[["image_id", "sha256"]].assign(row=kept["image_id"], pixel_std=pixel_std)
    fewer = "raise filter_images.threshold, or run generate_images with another generator.dtype or guidance_scale"
    return Table(
        "kept_images",
        frame,
        [
            some_rows("some images are kept", "lower filter_images.threshold, or tune the text encoder for longer"),
            unique("kept images differ", "sha256", "check the generator: it draws the same image twice"),
            between("no kept image is black or constant", "pixel_std", MIN_PIXEL_STD, 1, fewer),
        ],
    )


def _seen_labels(products: Products, label_space: LabelSpace) -> Table:
    frame = pd.DataFrame({"row": label_space.seen, "train": _positives(products, label_space.seen, "train")})
    remedy = "add annotated images, or remove these labels from the label space"
    return Table("seen_labels", frame, [between("shown by train images", "train", 1, None, remedy, "warning")])


def _unseen_labels(products: Products, label_space: LabelSpace, min_images_per_label: int) -> Table:
    kept = products.filtered.loc[products.filtered["kept"].astype(bool), "labels"]
    frame = pd.DataFrame(
        {
            "row": label_space.unseen,
            "prompts": _occurrences(products.prompts["labels"], label_space.unseen),
            "kept": _occurrences(kept, label_space.unseen),
            "test": _positives(products, label_space.unseen, "test"),
        }
    )
    measured = "add test images that show these labels; without one a label is left out of the averages"
    more = "raise generate_images.max_images, tune for longer, or give the label an alias that draws better"
    return Table(
        "unseen_labels",
        frame,
        [
            between("asked for by prompts", "prompts", 1, None, "run write_prompts again for this label space"),
            between("shown by enough kept images", "kept", min_images_per_label, None, more, "warning"),
            between("shown by test images", "test", 1, None, measured, "warning"),
        ],
    )


def _other_splits(real: pd.DataFrame, column: str) -> pd.Series:
    """(N,) the splits that share the value of a column, "" where there is only one."""
    shared = real.groupby(column)["split"].agg(lambda splits: listed(set(splits)) if splits.nunique() > 1 else "")
    return real[column].map(shared)


def _score_problem(num_unseen: int, discriminator: NDArray[np.floating], judge: NDArray[np.floating]) -> str:
    problems = []
    for scorer, scores in (("discriminator", discriminator), ("judge", judge)):
        if scores is None or len(scores) != num_unseen:
            problems.append(f"{scorer}: {0 if scores is None else len(scores)} scores, not {num_unseen}")
        elif not np.isfinite(scores).all():
            problems.append(f"{scorer}: not finite")
    return "; ".join(problems)


def _label_problem(kept: bool, labels: Sequence[str], requested: Sequence[str], unseen: Sequence[str]) -> str:
    if not kept:
        return "rejected, but has labels" if len(labels) else ""
    if foreign := set(labels) - set(unseen):
        return f"not unseen: {listed(foreign)}"
    missing = set(requested) - set(labels)
    return f"requested, but not among its labels: {listed(missing)}" if missing else ""


def _reason_problem(kept: bool, reason: str | None) -> str:
    if kept:
        return "" if reason == "kept" else f"kept, but the reason is {reason!r}"
    return "" if reason and reason != "kept" else f"rejected, but the reason is {reason!r}"


def _occurrences(label_lists: pd.Series, labels: Sequence[str]) -> list[int]:
    counts = label_lists.explode().value_counts()
    return [int(counts.get(label, 0)) for label in labels]


def _positives(products: Products, labels: Sequence[str], split: str) -> list[int]:
    ids = products.real.loc[products.real["split"] == split, "image_id"]
    targets = products.targets[products.targets["image_id"].isin(ids)]
    return [int(targets[label].eq(1).sum()) for label in labels]
