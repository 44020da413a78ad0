"""What generation brought, to look at: a table and bars of pass rates per label, sheets of images with their scores.

Letters: N images, U unseen labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from tailorset.generation import Row, requested_probabilities
from tailorset.quota import QuotaPlanner
from tailorset.shards import load_images
from tailorset.sheets import contact_sheet

AT_QUOTA = "at quota"
SHEET_IMAGES, SHEET_COLUMNS, SHEET_TILE_PX = 48, 8, 128


def outcome_table(planner: QuotaPlanner, rows: list[Row], judged: np.ndarray) -> pd.DataFrame:
    """One row per unseen label; pass rates are over the candidates that request the label.

    judged: (N,) bool, whether the judge sees every requested label.
    """
    requested = np.array([[label in row["labels"] for label in planner.labels] for row in rows])  # (N, U)
    reason = "no prompt left that may be drawn" if planner.left else "budget spent"
    outcome = dict.fromkeys(planner.under_quota, f"under quota, {reason}")
    outcome |= dict.fromkeys(planner.given_up, "given up: not one kept in its share of the budget")
    return pd.DataFrame(
        {
            "label": planner.labels,
            "drawn": planner.drawn.values(),
            "kept": planner.kept.values(),
            "quota": planner.quotas.values(),
            "pass_rate": [planner.kept[label] / planner.drawn[label] for label in planner.labels],
            "judge_pass_rate": [float(judged[column].mean()) for column in requested.T],
            "outcome": [outcome.get(label, AT_QUOTA) for label in planner.labels],
        }
    )


def plot_pass_rates(outcome: pd.DataFrame, path: Path) -> None:
    places = np.arange(len(outcome))
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.5 * len(outcome)), layout="constrained")
    axes.barh(places - 0.2, outcome.pass_rate, 0.38, color="#33608c", label="discriminator (decides)")
    axes.barh(places + 0.2, outcome.judge_pass_rate, 0.38, color="#e0a458", label="judge (only measures)")
    names = [f"{row.label}\n{row.kept} of {row.drawn} kept" for row in outcome.itertuples()]
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of candidates that show every label requested of them")
    figure.legend(loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def save_sheet(rows: list[Row], unseen: Sequence[str], chosen: np.ndarray, folder: Path, path: Path) -> None:
    """Up to 48 of the `chosen` row numbers, evenly spaced, with the probabilities of their requested labels.

    Beside each label stands the discriminator's probability, then the judge's. folder: the product the rows describe.
    """
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(SHEET_IMAGES, len(chosen))).round().astype(int)]
    shown = [rows[i] for i in chosen]
    images = [np.asarray(image) for _, image in load_images(pd.DataFrame(shown), folder)]
    scores = zip(
        shown,
        requested_probabilities(shown, unseen),
        requested_probabilities(shown, unseen, "judge"),
        strict=True,
    )
    captions = [
        "\n".join(f"{name} {ours[i]:.2f} / {judge[i]:.2f}" for i, name in enumerate(unseen) if name in row["labels"])
        for row, ours, judge in scores
    ]
    scale = max(1, SHEET_TILE_PX // images[0].shape[1])
    title = f"{path.stem}: probability of each requested label by discriminator / judge"
    contact_sheet(images, captions, SHEET_COLUMNS, scale, title).save(path)
