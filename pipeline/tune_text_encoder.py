"""Tune the generator's text encoder for the unseen labels, and measure on held-out prompts what that changed."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from tailorset.checkpoint import load_checkpoint, save_checkpoint
from tailorset.clip import load_clip
from tailorset.generators import Generator
from tailorset.plugins import load_plugin
from tailorset.records import PROMPT_COLUMNS, Prompt
from tailorset.sheets import contact_sheet
from tailorset.stage import LORA, PROMPTS, Stage, atomic_output, run_stage, write_json
from tailorset.text_encoder import Scorer, Settings, Tuner, Update, acceptance, draw, split_prompts

IMAGES_PER_PROMPT = 4  # of a held-out prompt, each with its own seed
SHEET_COLUMNS, SHEET_PROMPTS = 7, 21
log = logging.getLogger(__name__)


class HeldOut(NamedTuple):
    """The images of the held-out prompts, (N, 3, H, W) in [0, 1] on the CPU."""

    prompts: list[Prompt]
    before: torch.Tensor
    after: torch.Tensor


def main() -> None:
    with run_stage("tune_text_encoder") as stage:
        settings = stage.params.tune_text_encoder
        prompts = [Prompt(**row) for row in pq.read_table(PROMPTS, columns=list(PROMPT_COLUMNS)).to_pylist()]
        tuning, held_out = split_prompts(prompts, settings.held_out_prompts, stage.params.seed)
        shown = held_out * IMAGES_PER_PROMPT
        scorers = {role: open_scorer(stage, role) for role in ("discriminator", "judge")}
        generator = load_plugin("generators", stage.params.generator.name).build(
            stage.params.generator.config, stage.device
        )
        before = draw_all(stage, generator, shown, "before")
        history = tune(stage, generator, scorers["discriminator"], tuning)
        after = draw_all(stage, generator, shown, "after") if history else before
        with atomic_output(LORA) as folder:
            if history:
                generator.save_adapter(folder)
            write_json(folder / "tuning.json", {"num_updates": len(history)})
        report(stage, scorers, history, HeldOut(shown, before, after))


def open_scorer(stage: Stage, role: str) -> Scorer:
    model = getattr(stage.params.clip, role)
    clip = load_clip(model.model, stage.device, model.pretrained)
    return Scorer(clip, stage.label_space.unseen, stage.params.clip.prompt_template)


def draw_all(stage: Stage, generator: Generator, prompts: list[Prompt], when: str) -> torch.Tensor:
    settings = stage.params.tune_text_encoder
    batches = draw(generator, prompts, stage.params.seed, settings.num_inference_steps, settings.batch_size)
    with tqdm(total=len(prompts), desc=f"held-out prompts, {when} tuning", unit="image") as bar:
        images = []
        for batch in batches:
            images.append(batch.cpu())
            bar.update(len(batch))
    return torch.cat(images)


def tune(stage: Stage, generator: Generator, discriminator: Scorer, prompts: list[Prompt]) -> list[Update]:
    """All updates, from the last checkpoint on; without updates the text encoder gets no adapter."""
    block = stage.params.tune_text_encoder
    if not block.num_updates:
        return []
    generator.add_adapter(block.lora_rank, block.lora_alpha, stage.params.seed)
    if block.gradient_checkpointing:
        generator.enable_gradient_checkpointing()
    settings = Settings(**block.model_dump(include=set(Settings.__dataclass_fields__)))
    tuner = Tuner(generator, discriminator, prompts, settings, stage.params.seed)
    history = restore(stage.work_dir, tuner)
    with tqdm(total=block.num_updates, initial=len(history), desc="tune_text_encoder", unit="update") as bar:
        for record in tuner.updates(history):
            history.append(record)
            if len(history) % block.checkpoint_every == 0:
                keep(stage.work_dir, tuner, history)
            stage.log_metrics(
                {f"tune/{key}": getattr(record, key) for key in ("loss", "acceptance", "grad_norm")}, step=record.update
            )
            bar.update()
            bar.set_postfix(loss=f"{record.loss:.3f}", acceptance=f"{record.acceptance:.2f}")
    return history


def keep(work_dir: Path, tuner: Tuner, history: list[Update]) -> None:
    """The history first: a kill in between leaves it longer than the checkpoint, and `restore` cuts it."""
    partial = work_dir / "history.json.partial"
    partial.write_text(json.dumps(history))
    os.replace(partial, work_dir / "history.json")
    save_checkpoint(work_dir / "adapter.safetensors", len(history), adapter=tuner.adapter, optimizer=tuner.optimizer)


def restore(work_dir: Path, tuner: Tuner) -> list[Update]:
    """The updates an interrupted run has finished, their effect put in place."""
    done = load_checkpoint(work_dir / "adapter.safetensors", adapter=tuner.adapter, optimizer=tuner.optimizer)
    if not done:
        return []
    return [Update(*record) for record in json.loads((work_dir / "history.json").read_text())[:done]]


def report(stage: Stage, scorers: dict[str, Scorer], history: list[Update], held_out: HeldOut) -> None:
    """Acceptance before and after by both CLIPs, the curve, and the same prompts and seeds side by side."""
    metrics = {
        f"acceptance/{when}/{role}": acceptance(scorer, getattr(held_out, when), held_out.prompts)
        for when in ("before", "after")
        for role, scorer in scorers.items()
    }
    skipped = sum(record.skipped for record in history)
    stage.save_metrics(metrics | {"tune/updates": len(history), "tune/skipped_updates": skipped})
    if skipped:
        log.warning("%d of %d updates were skipped: their gradient was not finite", skipped, len(history))
    curve = pd.DataFrame(history, columns=list(Update._fields))
    curve.to_csv(stage.plots_dir / "curve.csv", index=False)
    plot_curve(curve, stage.plots_dir / "curve.png")
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
