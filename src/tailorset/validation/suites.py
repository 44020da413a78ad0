"""Everything that must hold for the products that training reads: a table of rows and rules for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from tailorset.records import (
    FILTERED_COLUMNS,
    PHOTO_COLUMNS,
    PROMPT_COLUMNS,
    REAL_COLUMNS,
    SYNTHETIC_COLUMNS,
    LabelSpace,
)
from tailorset.validation.generated_rules import (
    candidate_table,
    decision_table,
    kept_table,
    negative_table,
    source_table,
)
from tailorset.validation.label_rules import seen_label_table, unseen_label_table
from tailorset.validation.photo_rules import photo_table, target_table
from tailorset.validation.products import Products
from tailorset.validation.prompt_rules import prompt_table
from tailorset.validation.rules import DataRule, Table, blank, named
from tailorset.validation.settings import ValidateData


def layout_tables(products: Products, label_space: LabelSpace) -> list[Table]:
    """Return rules for a first check: every manifest has the columns that the other rules read, without a gap."""
    columns = {
        "prompts": PROMPT_COLUMNS,
        "real": REAL_COLUMNS,
        "targets": ("image_id", *label_space.names),
        "synthetic": SYNTHETIC_COLUMNS + (PHOTO_COLUMNS if products.starts_from_photos else ()),
        "filtered": FILTERED_COLUMNS,
        **({} if products.negatives is None else {"negatives": SYNTHETIC_COLUMNS}),
    }
    frames = {name: getattr(products, name) for name in columns}
    layouts = [_layout(name, frame, columns[name]) for name, frame in frames.items()]
    return layouts + [_cells(name, frame) for name, frame in frames.items()]


def content_tables(
    products: Products, label_space: LabelSpace, settings: ValidateData, refused: Mapping[str, float] | None = None
) -> list[Table]:
    """Return all rules on the content; the manifests must have passed `layout_tables`.

    refused: number of the LLM's replies that were refused, by reason.
    """
    return [
        prompt_table(products.prompts, label_space, settings.max_template_share, refused or {}),
        photo_table(products.real, products.targets, label_space),
        target_table(products.real, products.targets, label_space, settings.annotated_unseen),
        candidate_table(products, len(label_space.unseen)),
        *([source_table(products)] if products.starts_from_photos else []),
        *([] if products.negatives is None else [negative_table(products.negatives, products, label_space)]),
        decision_table(products, label_space),
        kept_table(products),
        seen_label_table(products, label_space),
        unseen_label_table(products, label_space, settings.min_images_per_label),
    ]


def _layout(name: str, frame: pd.DataFrame, columns: Sequence[str]) -> Table:
    arguments = {"column_set": list(columns), "exact_match": True}
    rule = DataRule("has exactly its columns", "ExpectTableColumnsToMatchSet", arguments, "run its stage again")
    return Table(f"{name}_columns", frame, [rule])


def _cells(name: str, frame: pd.DataFrame) -> Table:
    """Return the rule that no cell is empty: other rules ignore empty cells, as Great Expectations does."""
    gaps = pd.DataFrame({"row": frame.iloc[:, 0], "empty": named(frame.isna().to_numpy(), frame.columns)})
    return Table(f"{name}_cells", gaps, [blank("no cell is empty", "empty", "run its stage again")])
