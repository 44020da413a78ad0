"""Measure the gain of giving up hopeless candidates before their last sampling step.

Draws the same candidates of the project's prompts to the end and only as far as the image predicted after S steps, for
each S. On half of them it chooses, for each S, the probability below which a candidate is given up so that at most
--lost of the good ones go with it; on the other half it measures what that would save. `python
benchmarks/early_rejection.py`, two minutes on two cores, after `dvc repro generate_images`.

Shapes: N candidates, T sampling steps, S of them taken.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timing import Side, seconds_per_sample
from torch import Tensor
from tqdm import tqdm

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.clip.scorer import LabelScorer
from tailorset.compute.device import resolve_device, use_tf32
from tailorset.project.assembly import open_studio
from tailorset.project.layout import PROMPTS
from tailorset.project.params import load_params
from tailorset.records import LabelSpace, Prompt, read_prompts
from tailorset.seeding import numpy_rng, sample_seed


@dataclass(frozen=True)
class Saving:
    """Effect of giving up after S steps: shares of the good and of the others that are given up, and the time a
    kept candidate then takes, as a share of what it takes with all candidates drawn to the end."""

    steps: int
    cutoff: float
    lost: float
    caught: float
    time: float


@dataclass(frozen=True)
class ImageCost:
    """Seconds per image: of a sampling step, and of decoding and scoring it."""

    num_steps: int
    step: float
    look: float


def saving(preview: Tensor, final: Tensor, threshold: float, lost: float, steps: int, cost: ImageCost) -> Saving:
    """preview, final: (N,) probabilities of the weakest requested label after S and after all steps; the first half
    chooses the cutoff, which is measured on the second half."""
    half = len(final) // 2
    good = final > threshold
    cutoff = float(preview[:half][good[:half]].quantile(lost))
    given_up, good = preview[half:] < cutoff, good[half:]
    kept, on = float((good & ~given_up).double().mean()), float((~given_up).double().mean())
    seconds = steps * cost.step + cost.look + on * ((cost.num_steps - steps) * cost.step + cost.look)
    whole = (cost.num_steps * cost.step + cost.look) / float(good.double().mean())
    return Saving(
        steps,
        cutoff,
        float(given_up[good].double().mean()),
        float(given_up[~good].double().mean()),
        seconds / kept / whole if kept else math.inf,
    )


class CandidateSample:
    """Some candidates of the project's prompts, which can be scored after any number of steps."""

    def __init__(self, num_candidates: int) -> None:
        params = load_params()
        use_tf32()
        self.device = resolve_device(params.device)
        space = LabelSpace.load(params.label_space)
        self.settings = params.generate_images
        self.studio: Any = open_studio(params, space, self.device)
        self.scorer = LabelScorer(self.studio.discriminator, space.unseen, params.clip.prompt_template)
        prompts = read_prompts(PROMPTS)
        order = numpy_rng(params.seed, "early rejection").integers(len(prompts), size=num_candidates)
        self.prompts = [prompts[i] for i in order]
        self.seeds = [sample_seed(params.seed, "early rejection", i) for i in range(num_candidates)]

    def weakest(self, steps: int) -> Tensor:
        """(N,) probability of the weakest requested label in the image predicted after this many steps."""
        size = self.settings.batch_size
        parts = [slice(start, start + size) for start in range(0, len(self.prompts), size)]
        return torch.cat([self.scorer.weakest(self._images(part, steps), self.prompts[part]) for part in parts]).cpu()

    def cost(self, repetitions: int) -> ImageCost:
        """Medians of a batch drawn with all steps, with half of them, and scored."""
        whole, part = self.settings.num_inference_steps, slice(self.settings.batch_size)
        half, images, asked = whole // 2, self._images(part, whole), self.prompts[part]
        ways = {
            "whole": Side(lambda: self._images(part, whole), len(asked)),
            "half": Side(lambda: self._images(part, half), len(asked)),
            "scored": Side(lambda: self.scorer.weakest(images, asked), len(asked)),
        }
        taken = seconds_per_sample(ways, self.device, repetitions)
        step = (taken["whole"] - taken["half"]) / (whole - half)
        return ImageCost(whole, step, taken["whole"] - whole * step + taken["scored"])

    def _images(self, part: slice, steps: int) -> Tensor:
        asked: Sequence[Prompt] = self.prompts[part]
        texts, whole = [prompt.text for prompt in asked], self.settings.num_inference_steps
        stop = None if steps == whole else steps
        return self.studio.generator.sample(texts, self.seeds[part], whole, stop_after=stop)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=512)
    parser.add_argument("--lost", type=float, default=0.02, help="share of good candidates that may be given up")
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each timing")
    options = parser.parse_args(arguments)
    candidates = CandidateSample(options.candidates)
    cost = candidates.cost(options.repetitions)
    threshold, final = candidates.settings.quota_threshold, candidates.weakest(cost.num_steps)
    print(
        f"a step {1e3 * cost.step:.1f} ms an image, decoding and scoring {1e3 * cost.look:.1f} ms;"
        f" {float((final > threshold).double().mean()):.1%} of {len(final)} candidates are good"
    )
    print(f"{'steps':>5}{'cutoff':>8}{'good given up':>15}{'others given up':>17}{'time a kept image':>19}")
    for steps in tqdm(range(1, cost.num_steps), leave=False):
        found = saving(candidates.weakest(steps), final, threshold, options.lost, steps, cost)
        tqdm.write(f"{steps:>5}{found.cutoff:>8.3f}{found.lost:>15.1%}{found.caught:>17.1%}{found.time:>19.2f}")


if __name__ == "__main__":
    main()
