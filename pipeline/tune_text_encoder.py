"""Tune the generator's text encoder for the unseen labels, and measure on held-out prompts what that changed."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from tailorset.clip.scorer import Scorer, acceptance
from tailorset.compute import processes
from tailorset.compute.memory import ShrinkingBatches
from tailorset.generators import Generator
from tailorset.images.sheets import contact_sheet
from tailorset.plugins import load_plugin
from tailorset.progress import Bar
from tailorset.project.layout import LORA, PROMPTS
from tailorset.project.stage import Stage, run_stage
from tailorset.records import Prompt, read_prompts
from tailorset.storage import checksums
from tailorset.storage.checkpoint import load_checkpoint, save_checkpoint
from tailorset.storage.files import atomic_output, write_json
from tailorset.tuning.early_stop import Evaluation, best, is_over, reward_hacking
from tailorset.tuning.tuner import (
    IMAGES_PER_PROMPT,
    REMEDY,
    Tuner,
    Update,
    draw,
    new_tuner,
    split_prompts,
)

SHEET_COLUMNS, SHEET_PROMPTS = 7, 21
EVALUATION_BATCH = 64  # images without gradient, to begin with
BEST = "best.safetensors"
log = logging.getLogger(__name__)


class HeldOut(NamedTuple):
    """The images of the held-out prompts, (N, 3, H, W) in [0, 1] on the CPU."""

    prompts: list[Prompt]
    before: torch.Tensor
    after: torch.Tensor


@dataclass
class Progress:
    """What an interrupted run has done so far."""

    updates: list[Update] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)


def main() -> None:
    with run_stage("tune_text_encoder", parallel=True) as stage:
        settings = stage.params.tune_text_encoder
        prompts = read_prompts(PROMPTS)
        tuning, held_out = split_prompts(prompts, settings.held_out_prompts, stage.params.seed)
        shown = held_out * IMAGES_PER_PROMPT
        scorers = {role: open_scorer(stage, role) for role in ("discriminator", "judge")}
        generator = load_plugin("generators", stage.params.generator.name).build(
            stage.params.generator.config, stage.device
        )
        batches = ShrinkingBatches(EVALUATION_BATCH, "drawing held-out prompts", REMEDY)
        before = draw_all(stage, generator, shown, batches, "before")
        progress = tune(stage, generator, scorers, tuning, held_out, batches) if settings.num_updates else Progress()
        kept = best(progress.evaluations).update if progress.evaluations else 0
        if not stage.is_main:
            return
        after = draw_all(stage, generator, shown, batches, "after") if kept else before
        with atomic_output(LORA) as folder:
            if kept:
                generator.save_adapter(folder)
            write_json(folder / "tuning.json", {"num_updates": kept})
            checksums.seal(folder)
        report(stage, scorers, progress, HeldOut(shown, before, after))


def open_scorer(stage: Stage, role: str) -> Scorer:
    clip = getattr(stage.params.clip, role).load(stage.device)
    return Scorer(clip, stage.label_space.unseen, stage.params.clip.prompt_template)


def draw_all(
    stage: Stage, generator: Generator, prompts: list[Prompt], batches: ShrinkingBatches, when: str
) -> torch.Tensor:
    steps, images = stage.params.generate_images.num_inference_steps, []
    with Bar(total=len(prompts), desc=f"held-out prompts, {when} tuning", unit="image") as bar:
        for batch in draw(generator, prompts, stage.params.seed, steps, batches):
            images.append(batch.cpu())
            bar.update(len(batch))
    return torch.cat(images)


def tune(
    stage: Stage,
    generator: Generator,
    scorers: dict[str, Scorer],
    prompts: list[Prompt],
    held_out: list[Prompt],
    batches: ShrinkingBatches,
) -> Progress:
    """Updates from the last checkpoint on until patience ends; leaves the adapter of the lowest held-out loss."""
    block = stage.params.tune_text_encoder
    tuner = new_tuner(generator, scorers["discriminator"], prompts, block, stage.label_space, stage.params.seed)
    progress = restore(stage.work_dir, tuner)
    processes.wait()  # nobody writes a checkpoint that another has yet to read
    done, updates = progress.updates, tuner.updates(progress.updates)
    if not progress.evaluations:
        evaluate(stage, tuner, scorers, held_out, batches, progress)
    with Bar(total=block.num_updates, initial=len(done), unit="update", is_whole=True) as bar:
        while not is_over(progress.evaluations, block.patience) and (record := next(updates, None)):
            done.append(record)
            stage.log_metrics(
                {f"tune/{key}": getattr(record, key) for key in ("loss", "acceptance", "grad_norm")}, step=record.update
            )
            if len(done) % block.evaluate_every == 0 or len(done) == block.num_updates:
                evaluate(stage, tuner, scorers, held_out, batches, progress)
                keep(stage, tuner, progress)
            elif len(done) % block.checkpoint_every == 0:
                keep(stage, tuner, progress)
            bar.update()
            bar.set_postfix(loss=f"{record.loss:.3f}", acceptance=f"{record.acceptance:.2f}")
    stage.log_metrics({"tune/micro_batch": tuner.batches.size})
    processes.wait()  # for the last checkpoint
    load_checkpoint(stage.work_dir / BEST, adapter=tuner.adapter)
    return progress


def evaluate(
    stage: Stage,
    tuner: Tuner,
    scorers: dict[str, Scorer],
    prompts: list[Prompt],
    batches: ShrinkingBatches,
    progress: Progress,
) -> None:
    """Images of each held-out prompt, none of those of the final measurement, by both CLIPs."""
    own, weight = processes.share(len(prompts))
    shown, steps = prompts[own] * IMAGES_PER_PROMPT, stage.params.generate_images.num_inference_steps
    weight *= len(shown) / (len(prompts) * IMAGES_PER_PROMPT)
    images = torch.cat(list(draw(tuner.generator, shown, stage.params.seed, steps, batches, "early stop")))

    def mean(own_mean: float) -> float:
        """Over the images of all processes; equal ones stay equal, however they were added up."""
        return round(processes.total(weight * own_mean, stage.device), 5)

    loss = mean(tuner.held_out_loss(images, shown))
    accepted = {role: mean(acceptance(scorer, images, shown)) for role, scorer in scorers.items()}
    progress.evaluations.append(latest := Evaluation(len(progress.updates), loss, **accepted))
    if best(progress.evaluations) is latest and stage.is_main:
        save_checkpoint(stage.work_dir / BEST, latest.update, adapter=tuner.adapter)
    gauge = {"tune/held_out/loss": loss, "tune/reward_hacking": reward_hacking(progress.evaluations[0], latest)}
    stage.log_metrics({f"tune/held_out/{role}": share for role, share in accepted.items()} | gauge, step=latest.update)


def keep(stage: Stage, tuner: Tuner, progress: Progress) -> None:
    """The history first: a kill in between leaves it longer than the checkpoint, and `restore` cuts it."""
    if not stage.is_main:
        return
    work_dir = stage.work_dir
    partial = work_dir / "history.json.partial"
    partial.write_text(json.dumps(asdict(progress)))
    os.replace(partial, work_dir / "history.json")
    save_checkpoint(
        work_dir / "adapter.safetensors", len(progress.updates), adapter=tuner.adapter, optimizer=tuner.optimizer
    )


def restore(work_dir: Path, tuner: Tuner) -> Progress:
    """What an interrupted run has finished, its effect put in place."""
    done = load_checkpoint(work_dir / "adapter.safetensors", adapter=tuner.adapter, optimizer=tuner.optimizer)
    if not done:
        return Progress()
    history = json.loads((work_dir / "history.json").read_text())
    evaluations = [Evaluation(*row) for row in history["evaluations"]]
    return Progress(
        [Update(*row) for row in history["updates"][:done]], [row for row in evaluations if row.update <= done]
    )


def report(stage: Stage, scorers: dict[str, Scorer], progress: Progress, held_out: HeldOut) -> None:
    """Acceptance before and after by both CLIPs, the curves, and the same prompts and seeds side by side."""
    num_updates, skipped = len(progress.updates), sum(record.skipped for record in progress.updates)
    accepted = {
        when: {role: acceptance(scorer, getattr(held_out, when), held_out.prompts) for role, scorer in scorers.items()}
        for when in ("before", "after")
    }
    kept = best(progress.evaluations).update if progress.evaluations else 0
    stage.save_metrics(
        {f"acceptance/{when}/{role}": share for when, shares in accepted.items() for role, share in shares.items()}
        | {"tune/updates": num_updates, "tune/kept_update": kept, "tune/skipped_updates": skipped}
        | {
            "tune/reward_hacking": reward_hacking(
                *(Evaluation(update, 0.0, **accepted[when]) for update, when in ((0, "before"), (kept, "after")))
            )
        }
    )
    if skipped:
        log.warning("%d of %d updates were skipped: their gradient was not finite", skipped, num_updates)
    curve = pd.DataFrame(progress.updates, columns=list(Update._fields))
    curve.to_csv(stage.plots_dir / "curve.csv", index=False)
    plot_curve(curve, stage.plots_dir / "curve.png")
    gauge = gauge_table(progress.evaluations)
    gauge.to_csv(stage.plots_dir / "reward_hacking.csv", index=False)
    if progress.evaluations:
        plot_gauge(gauge, kept, stage.plots_dir / "reward_hacking.png")
    save_sheet(scorers["discriminator"], held_out, stage.plots_dir / "before_after.png")
    for path in sorted(stage.plots_dir.glob("*.png")):
        stage.log_figure(path)


def plot_curve(curve: pd.DataFrame, path: Path) -> None:
    """Loss and acceptance over the updates, thin as measured and bold as the mean of ten."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axis, column in zip(figure.subplots(1, 2), ("loss", "acceptance"), strict=True):
        axis.plot(curve["update"], curve[column], color="tab:blue", alpha=0.3)
        axis.plot(curve["update"], curve[column].rolling(10, min_periods=1).mean(), color="tab:blue")
        axis.set(xlabel="update", title=f"{column} on the tuning batch", ylim=(0, None))
    figure.savefig(path, dpi=100, metadata={"Software": None})


def gauge_table(evaluations: list[Evaluation]) -> pd.DataFrame:
    """The evaluations, with the gauge of each against the first."""
    table = pd.DataFrame(evaluations, columns=list(Evaluation._fields))
    return table.assign(reward_hacking=[reward_hacking(evaluations[0], latest) for latest in evaluations])


def plot_gauge(table: pd.DataFrame, kept: int, path: Path) -> None:
    """Gains of both CLIPs over the updates and their difference; the dotted line is the adapter that was kept."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    for role in ("discriminator", "judge"):
        axis.plot(table["update"], table[role] - table[role].iloc[0], marker="o", label=f"{role}'s gain")
    axis.plot(
        table["update"], table["reward_hacking"], color="tab:red", marker="o", label="reward hacking: the difference"
    )
    axis.axvline(kept, color="grey", linestyle=":")
    axis.axhline(0, color="grey", linewidth=0.5)
    axis.set(xlabel="update", title="acceptance of held-out prompts against untuned")
    axis.legend(fontsize="small")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def save_sheet(scorer: Scorer, held_out: HeldOut, path: Path) -> None:
    """Rows in pairs: images before tuning, below them the same prompts and seeds after it."""
    prompts = held_out.prompts[:SHEET_PROMPTS]
    tiles: list[np.ndarray] = []
    captions: list[str] = []
    for start in range(0, len(prompts), SHEET_COLUMNS):
        for when in ("before", "after"):
            part = slice(start, min(start + SHEET_COLUMNS, len(prompts)))
            images = getattr(held_out, when)[part]
            tiles += list((images * 255).round().byte().permute(0, 2, 3, 1).numpy())
            weakest = scorer.weakest(images, prompts[part]).tolist()
            captions += [
                f"{when} {score:.2f}\n{', '.join(p.labels)}" for p, score in zip(prompts[part], weakest, strict=True)
            ]
    contact_sheet(tiles, captions, SHEET_COLUMNS, scale=3).save(path)


if __name__ == "__main__":
    main()
