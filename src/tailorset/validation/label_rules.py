"""Rules on the labels: each one is shown by enough images of every kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from tailorset.records import LabelSpace
from tailorset.validation.products import Products
from tailorset.validation.rules import Table, between


def seen_label_table(products: Products, label_space: LabelSpace) -> Table:
    frame = pd.DataFrame({"row": label_space.seen, "train": products.positives(label_space.seen, "train")})
    remedy = "add annotated images, or remove these labels from the label space"
    return Table("seen_labels", frame, [between("shown by train images", "train", 1, None, remedy, "warning")])


def unseen_label_table(products: Products, label_space: LabelSpace, min_images_per_label: int) -> Table:
    frame = pd.DataFrame(
        {
            "row": label_space.unseen,
            "prompts": _occurrences(products.prompts["labels"], label_space.unseen),
            "kept": _occurrences(products.kept["labels"], label_space.unseen),
            "absent": _absences(products, label_space),
            "test": products.positives(label_space.unseen, "test"),
        }
    )
    measured = "add test images that show these labels; without one a label is left out of the averages"
    rare = (
        "draw negatives (generate_images.negative_images) or review images (`tailorset review`); if many prompts name"
        " the label by chance, give it another name or alias"
    )
    more = "raise generate_images.max_images, tune for longer, or give the label an alias that draws better"
    return Table(
        "unseen_labels",
        frame,
        [
            between("asked for by prompts", "prompts", 1, None, "run write_prompts again for this label space"),
            between("shown by enough kept images", "kept", min_images_per_label, None, more, "warning"),
            between("known to be absent in enough images", "absent", min_images_per_label, None, rare, "warning"),
            between("shown by test images", "test", 1, None, measured, "warning"),
        ],
    )


def _absences(products: Products, label_space: LabelSpace) -> list[int]:
    """Return for each unseen label the number of images, kept ones and negatives, that are known not to show it."""
    kept, negatives = products.kept, products.negatives
    unsure = zip(kept["prompt"], kept["reviewed"], kept["labels"], strict=True)
    shown = [(label_space.may_show(text) - set(judged)) | set(labels) for text, judged, labels in unsure]
    shown += [] if negatives is None else [label_space.may_show(text) for text in negatives["prompt"]]
    counts = Counter(name for names in shown for name in names)
    return [len(shown) - counts[name] for name in label_space.unseen]


def _occurrences(label_lists: pd.Series, labels: Sequence[str]) -> list[int]:
    counts = label_lists.explode().value_counts()
    return [int(counts.get(label, 0)) for label in labels]
