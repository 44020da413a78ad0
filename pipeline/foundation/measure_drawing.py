"""Measure what the generator draws with the settings of the preset, by what the oracle sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from foundation_settings import Foundation
from tqdm import tqdm

from tailorset.generators import Generator
from tailorset.images.sheets import contact_sheet
from tailorset.project.params import Params, load_params
from tailorset.records import LabelSpace
from tailorset.seeding import numpy_rng, sample_seed
from tailorset.toybox.objects import COLOURS
from tailorset.toybox.oracle import Oracle

OPENINGS = {"drawing": "a drawing of", "snapshot": "a photo of"}
PLACES = ("on the grass", "on the sand", "on the snow", "in the sky", "on a table", "in front of a pink wall")
Prompt = tuple[str, tuple[str, ...], str]  # text, labels, colour
Sample = Callable[[list[str], list[int]], torch.Tensor]  # prompts and seeds -> images (B, 3, H, W)
SINGLES_PER_LABEL, PROMPTS_PER_PAIR, BATCH = 20, 14, 70
PRESET = Path("presets/toybox.yaml")  # how the generator draws
SOLVERS, STEPS = ("dpm++_2m", "dpm++_2m_early"), (5, 10, 20)


def measure_generator(settings: Foundation, space: LabelSpace, oracle: Oracle, sheets: Path) -> dict[str, float]:
    """Return `<style>/...` of images whose prompts ask for drawings, and for snapshots."""
    params = load_params(PRESET)
    steps = params.generate_images.num_inference_steps
    return measure_drawing(space, oracle, partial(build(params, settings).sample, num_inference_steps=steps), sheets)


def measure_steps(settings: Foundation, space: LabelSpace, oracle: Oracle) -> dict[str, float]:
    """Return `steps/SOLVER/T`, the share of pair prompts of both styles that show both labels in T sampling steps."""
    prompts = [prompt for opening in OPENINGS.values() for prompt in prompts_pair(space, opening)]
    params, metrics = load_params(PRESET), {}
    for solver in SOLVERS:
        sample = build(params, settings, scheduler=solver).sample
        for steps in STEPS:
            images = draw(partial(sample, num_inference_steps=steps), prompts)
            metrics[f"steps/{solver}/{steps}"] = share_of_pairs(space, oracle, images, prompts)
    return metrics


def build(params: Params, settings: Foundation, **changes: str) -> Generator:
    """Load the preset's generator with the published weights."""
    changed = {"model": str(settings.published / "diffusion")} | changes
    config = params.generator.config.model_copy(update=changed)
    return params.generator.model_copy(update={"config": config}).build(torch.device("cpu"))


def prompts_single(names: tuple[str, ...], opening: str) -> list[Prompt]:
    """(prompt, labels, colour) with colour and place varied evenly."""
    colours = [c for c in COLOURS if c != "white"]
    return [
        (
            f"{opening} a {colours[i % len(colours)]} {name} {PLACES[i % len(PLACES)]}",
            (name,),
            colours[i % len(colours)],
        )
        for name in names
        for i in range(SINGLES_PER_LABEL)
    ]


def prompts_pair(space: LabelSpace, opening: str) -> list[Prompt]:
    colours = [c for c in COLOURS if c != "white"]
    rng = numpy_rng("report pairs")
    prompts: list[Prompt] = []
    for pair in (pair for pair in space.pairs() if len(pair) == 2):
        for i in range(PROMPTS_PER_PAIR):
            first, second = rng.permutation(len(colours))[:2]
            things = f"a {colours[first]} {pair[0]} next to a {colours[second]} {pair[1]}"
            prompts.append((f"{opening} {things} {PLACES[i % len(PLACES)]}", pair, ""))
    return prompts


def draw(sample: Sample, prompts: list[Prompt]) -> torch.Tensor:
    images = []
    for start in tqdm(range(0, len(prompts), BATCH), desc="drawing"):
        texts = [text for text, _, _ in prompts[start : start + BATCH]]
        seeds = [sample_seed("report", start + i) for i in range(len(texts))]
        images.append(sample(texts, seeds))
    return torch.cat(images)


def measure_drawing(space: LabelSpace, oracle: Oracle, sample: Sample, sheets: Path) -> dict[str, float]:
    """Return `<style>/...` of images whose prompts ask for drawings, and for snapshots."""
    metrics: dict[str, float] = {}
    for style, opening in OPENINGS.items():
        singles, pairs = prompts_single(space.names, opening), prompts_pair(space, opening)
        images, pair_images = draw(sample, singles), draw(sample, pairs)
        figures = single_figures(space, oracle, images, singles)
        figures["pair/both_shown"] = share_of_pairs(space, oracle, pair_images, pairs)
        snapshots = oracle.snapshots(torch.cat([images, pair_images])) > 0.5
        figures["style_right"] = (snapshots == (style == "snapshot")).float().mean().item()
        metrics |= {f"{style}/{name}": value for name, value in figures.items()}
        tiles = torch.cat([images[::5], pair_images[::7]])
        arrays = [(255 * tile.permute(1, 2, 0)).round().byte().numpy() for tile in tiles]
        sheets.mkdir(parents=True, exist_ok=True)
        texts = [text for text, _, _ in singles[::5] + pairs[::7]]
        contact_sheet(arrays, texts, columns=12, scale=2).save(sheets / f"{style}s.png")
    return metrics


def share_of_pairs(space: LabelSpace, oracle: Oracle, images: torch.Tensor, prompts: list[Prompt]) -> float:
    """Return the share of the images that show both labels of their prompts."""
    shown = oracle.sees(images, space.names)
    return float(np.mean([all(shown[i, space.index(n)] for n in labels) for i, (_, labels, _) in enumerate(prompts)]))


def single_figures(space: LabelSpace, oracle: Oracle, images: torch.Tensor, prompts: list[Prompt]) -> dict[str, float]:
    """Return how often the one requested object is there, in its colour."""
    probability = oracle.probabilities(images)
    column = torch.tensor([space.index(labels[0]) for _, labels, _ in prompts])
    rows = torch.arange(len(prompts))
    present = probability[rows, column, 0] > 0.5
    colour = probability[rows, column, 1:].argmax(dim=1)
    named = torch.tensor([list(COLOURS).index(colour) for _, _, colour in prompts])
    figures = {
        "single/shown": present.float().mean().item(),
        "colour_right": (colour == named).float().mean().item(),
    }
    return figures | {
        f"single/shown/{n}": present[column == i].float().mean().item() for i, n in enumerate(space.names)
    }
