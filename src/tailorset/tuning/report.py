"""Report on tuning: acceptance before and after by both CLIPs, curves, and images side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from tailorset.clip.scorer import LabelScorer
from tailorset.clip.settings import ROLES
from tailorset.images.sheets import sheet_of_kinds
from tailorset.records import Prompt
from tailorset.tuning.early_stop import Evaluation, reward_hacking
from tailorset.tuning.held_out import HeldOut
from tailorset.tuning.loop import Progress
from tailorset.tuning.tuner import Update

SHEET_COLUMNS, SHEET_PROMPTS, SHEET_TILE_PX = 7, 21, 192


class Pictures(NamedTuple):
    """Images of the held-out prompts, (N, 3, H, W) in [0, 1] on the CPU, of the same seeds before and after tuning."""

    before: Tensor
    after: Tensor


def live_metrics(record: Update | Evaluation, progress: Progress) -> dict[str, float]:
    """Metrics of one record of the loop."""
    if isinstance(record, Update):
        return {"tune/loss": record.loss, "tune/acceptance": record.acceptance, "tune/grad_norm": record.grad_norm}
    accepted = {f"tune/held_out/{role}": getattr(record, role) for role in ROLES}
    gauge = reward_hacking(progress.evaluations[0], record)
    return accepted | {"tune/held_out/loss": record.loss, "tune/reward_hacking": gauge}


def metrics(progress: Progress, held_out: HeldOut, pictures: Pictures) -> dict[str, float]:
    """Final metrics: acceptance before and after tuning, what was kept, and the gauge of reward hacking."""
    accepted = {when: held_out.acceptance(images, held_out.shown) for when, images in pictures._asdict().items()}
    before, after = (Evaluation(0, 0.0, **accepted[when]) for when in ("before", "after"))
    return {
        **{f"acceptance/{when}/{role}": share for when, shares in accepted.items() for role, share in shares.items()},
        "tune/updates": len(progress.updates),
        "tune/kept_update": progress.kept_update,
        "tune/skipped_updates": progress.num_skipped,
        "tune/reward_hacking": reward_hacking(before, after),
    }


def save_curves(progress: Progress, folder: Path) -> None:
    """Write curve.csv and reward_hacking.csv, and a PNG of each that has a row."""
    curve, gauge = pd.DataFrame(progress.updates, columns=list(Update._fields)), gauge_table(progress.evaluations)
    for name, table in (("curve", curve), ("reward_hacking", gauge)):
        table.to_csv(folder / f"{name}.csv", index=False)
    if progress.updates:
        _save(curve_figure(curve), folder / "curve.png")
    if progress.evaluations:
        _save(gauge_figure(gauge, progress.kept_update), folder / "reward_hacking.png")


def curve_figure(curve: pd.DataFrame) -> Figure:
    """Loss and acceptance over the updates, thin as measured and bold as the mean of ten."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axis, column in zip(figure.subplots(1, 2), ("loss", "acceptance"), strict=True):
        axis.plot(curve["update"], curve[column], color="tab:blue", alpha=0.3)
        axis.plot(curve["update"], curve[column].rolling(10, min_periods=1).mean(), color="tab:blue")
        axis.set(xlabel="update", title=f"{column} on the tuning batch", ylim=(0, None))
    return figure


def gauge_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Return the evaluations, each with its gauge of reward hacking against the first."""
    table = pd.DataFrame(evaluations, columns=list(Evaluation._fields))
    return table.assign(reward_hacking=[reward_hacking(evaluations[0], latest) for latest in evaluations])


def gauge_figure(table: pd.DataFrame, kept_update: int) -> Figure:
    """Gains of both CLIPs over the updates and their difference; the dotted line marks the adapter that was kept."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    for role in ROLES:
        axis.plot(table["update"], table[role] - table[role].iloc[0], marker="o", label=f"{role}'s gain")
    axis.plot(
        table["update"], table["reward_hacking"], color="tab:red", marker="o", label="reward hacking: the difference"
    )
    axis.axvline(kept_update, color="grey", linestyle=":")
    axis.axhline(0, color="grey", linewidth=0.5)
    axis.set(xlabel="update", title="acceptance of held-out prompts against untuned")
    axis.legend(fontsize="small")
    return figure


def before_after_sheet(scorer: LabelScorer, prompts: Sequence[Prompt], pictures: Pictures) -> Image.Image:
    """Rows in pairs: images before tuning, below them the same prompts and seeds after it."""
    prompts = prompts[:SHEET_PROMPTS]
    shown = [images[: len(prompts)] for images in pictures]
    captions = [
        [
            f"{when} {score:.2f}\n{', '.join(prompt.labels)}"
            for prompt, score in zip(prompts, scorer.weakest(images, prompts).tolist(), strict=True)
        ]
        for when, images in zip(pictures._fields, shown, strict=True)
    ]
    return sheet_of_kinds(shown, captions, SHEET_COLUMNS, SHEET_TILE_PX)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=100, metadata={"Software": None})
