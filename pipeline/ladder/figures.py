"""The ladder's figures: every row with its intervals, and curves along single settings."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import pandas as pd
from matplotlib.figure import Figure
from pages import MEASURES, Tables


def ladder_figure(worlds: Tables) -> Figure:
    """ZSL and GZSL mAP of every measured row with intervals, one panel per world; worlds: {name: its table of rows}."""
    measured = {row for rows in worlds.values() for row in rows.dropna(subset=["zsl_map"])["row"]}
    tables = sorted(worlds.values(), key=len, reverse=True)  # a world may lack rows
    titles = dict(pair for table in tables for pair in zip(table["row"], table["title"], strict=True))
    titles = {row: title for row, title in titles.items() if row in measured}
    places = {row: place for place, row in enumerate(titles)}
    figure = Figure(figsize=(3.5 + 4.5 * len(worlds), 0.42 * len(titles) + 1.2), layout="constrained")
    panels = figure.subplots(1, len(worlds), sharey=True, squeeze=False)[0]
    for axes, (world, rows) in zip(panels, worlds.items(), strict=True):
        for shift, key, colour in ((-0.12, "zsl_map", "#33608c"), (0.12, "gzsl_map", "#e0a458")):
            errors = 100 * abs(rows[[f"{key}_low", f"{key}_high"]].sub(rows[key], axis=0).to_numpy().T)
            style = {"fmt": "o", "color": colour, "capsize": 3, "label": MEASURES[key]}
            axes.errorbar(100 * rows[key], rows["row"].map(places) + shift, xerr=errors, **style)
        axes.set_yticks(list(places.values()), list(titles.values()))
        axes.set(title=world, xlabel="mAP on the test photos, %")
        axes.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return figure


def curves_figure(table: pd.DataFrame) -> Figure:
    """ZSL mAP along each setting."""
    settings = list(dict.fromkeys(table["setting"]))
    figure = Figure(figsize=(3.2 * len(settings), 3), layout="constrained")
    for axes, setting in zip(figure.subplots(1, len(settings), sharey=True, squeeze=False)[0], settings, strict=True):
        rows = table[table["setting"] == setting]
        errors = 100 * abs(rows[["zsl_map_low", "zsl_map_high"]].sub(rows["zsl_map"], axis=0).to_numpy().T)
        axes.errorbar(range(len(rows)), 100 * rows["zsl_map"], yerr=errors, fmt="o-", color="#33608c", capsize=3)
        axes.set_xticks(range(len(rows)), [f"{value:g}" for value in rows["value"]])
        axes.set(xlabel=setting.partition(".")[2])
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("ZSL mAP, %")
    return figure
