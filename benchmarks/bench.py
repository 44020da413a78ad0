"""Speed of this project's loops against the plain way to do the same: `make bench`, 20 minutes on two cores.

Both sides of a comparison run in this process, in alternation, each after a warm-up; medians are reported. The models
and settings are those of params.yaml. --parts keeps the other figures if they have the same settings, and alone runs
nothing; --write-docs writes the table of docs/performance.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import plain_ways
import torch
from bench_page import table, write_docs
from performance_page import processor, read_figures, store_figures
from stock import bench_prompts, stock_noise, stock_pipeline
from timing import FOREVER, Side, SpeedComparison, TimedModule, compared, measured_roofs, peak_bytes, timed_call
from torch import Tensor

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.clip.scorer import LabelScorer
from tailorset.compute.device import resolve_device, use_tf32
from tailorset.compute.flops import flop_counter
from tailorset.generators.stable_diffusion import StableDiffusion, build
from tailorset.messages import MIB
from tailorset.project.params import Params, load_params
from tailorset.records import LabelSpace
from tailorset.seeding import sample_seed
from tailorset.tuning.tuner import Tuner, new_tuner

STOCK_IMAGES = 4  # images per turn of the one-at-a-time sides; times are per image
COCO, NUS_WIDE = Path("data/labels/coco.yaml"), Path("data/labels/nus_wide.yaml")  # 17 and 81 unseen labels
GOALS: dict[str, dict[str, float | None]] = {  # minimum times faster than the plain way
    "cpu": {"generation": 3, "batched": None, "full_stack": 15, "tuning": 3, "prompts": 4},
    "cuda": {"generation": 3, "batched": 1.3, "full_stack": 20, "tuning": 4, "prompts": 20},
}
MFU_GOAL = {"cpu": 0.35, "cuda": 0.4}


@dataclass(frozen=True)
class Utilisation:
    """Achieved floating-point rate in FLOP/s; `roofs` has the measured rates that it is compared with, by name."""

    unet_flops: float
    unet_share_of_flops: float
    unet_share_of_time: float
    rate: float
    roofs: dict[str, float]

    @property
    def mfu(self) -> float:
        return self.rate / max(self.roofs.values())


class PipelineBenchmark:
    """The models of params.yaml, and prompts for the unseen labels."""

    def __init__(self, params: Params, repetitions: int, num_judged: int) -> None:
        self.params, self.repetitions, self.num_judged = params, repetitions, num_judged
        use_tf32()
        self.device = resolve_device(params.device)
        self.goals = GOALS[self.device.type]
        self.config: Any = params.generator.config
        self.generator: StableDiffusion = params.generator.build(self.device)
        self.label_space = LabelSpace.load(params.label_space)
        self.unseen = self.label_space.unseen
        self.prompts = bench_prompts(self.label_space, params.generate_images.batch_size)
        self.texts = [prompt.text for prompt in self.prompts]
        self.seeds = [sample_seed(params.seed, "bench", i) for i in range(len(self.prompts))]
        self.num_steps = params.generate_images.num_inference_steps

    @property
    def parts(self) -> Mapping[str, Callable[[], SpeedComparison]]:
        """Every comparison by its name on the command line."""
        return {
            "generation": self.generation,
            "batched": self.batched_generation,
            "full_stack": lambda: plain_ways.full_stack(self),
            "cached": lambda: plain_ways.features_kept(self),
            "tuning": self.tuning,
            "filter_17": lambda: plain_ways.filtering(self, LabelSpace.load(COCO).unseen, goal=10),
            "filter_81": lambda: plain_ways.filtering(self, LabelSpace.load(NUS_WIDE).unseen, goal=30),
            "classifier": lambda: plain_ways.classifier(self, LabelSpace.load(NUS_WIDE), labels_per_step=100),
            "prompts": lambda: plain_ways.prompts(self),
            "metrics": lambda: plain_ways.metrics(self),
        }

    def generation(self) -> SpeedComparison:
        """Our batched sampling against the stock pipeline, one prompt at a time."""
        pipeline = stock_pipeline(self.config, self.device)
        noise = stock_noise(self.generator, self.seeds[:STOCK_IMAGES])

        def one_by_one() -> list[Tensor]:
            return [self._stock_images(pipeline, slice(i, i + 1), noise[i : i + 1]) for i in range(len(noise))]

        difference = float((self._sample()[: len(noise)].cpu() - torch.cat(one_by_one())).abs().max())
        note = f"batch {len(self.texts)} against 1, {self.num_steps} steps; largest pixel difference {difference:.1e}"
        return self.compare(
            "drawing, against StableDiffusionPipeline one by one",
            Side(self._sample, len(self.texts)),
            Side(one_by_one, len(noise)),
            note,
            self.goals["generation"],
            equal=difference < 1e-3,
        )

    def batched_generation(self) -> SpeedComparison:
        """The same batch in the stock pipeline."""
        pipeline, noise = stock_pipeline(self.config, self.device), stock_noise(self.generator, self.seeds)
        batch = len(self.texts)
        stock = Side(lambda: self._stock_images(pipeline, slice(0, batch), noise), batch)
        note = f"batch {batch}, {self.num_steps} steps, {self.config.dtype} on both sides"
        ours, goal = Side(self._sample, batch), self.goals["batched"]
        return self.compare("drawing, against StableDiffusionPipeline in batches", ours, stock, note, goal)

    def tuning(self) -> SpeedComparison:
        """An update as configured, against the gradient through all steps, with checkpointing as published."""
        block, steps = self.params.tune_text_encoder, self.num_steps
        full = plain_ways.checkpointed_plainly(build(self.config, self.device))
        own = self._tuner(build(self.config, self.device)).updates()  # other parts draw with the untuned one
        everything = self._tuner(full, num_inference_steps=steps, backprop_steps=steps, stop_after=None).updates()
        ours, plain = (Side(partial(next, updates), block.batch_size) for updates in (own, everything))
        peaks = " against ".join(f"{peak_bytes(side.work, self.device) / MIB:.0f} MiB" for side in (ours, plain))
        note = (
            f"K = {block.backprop_steps} of {block.num_inference_steps} steps against all {steps} with checkpointing,"
            f" batch {block.batch_size}, peak {peaks} in addition to the weights"
        )
        return self.compare("tuning, against full back-propagation", ours, plain, note, self.goals["tuning"])

    def utilisation(self) -> Utilisation:
        """Rate of the UNet while sampling, compared with the best rate of matmuls and of its own convolutions."""
        with flop_counter() as everywhere:
            self._sample()
        with TimedModule(self.generator.unet, self.device, count_flops=True) as in_unet:
            self._sample()
        shares, seconds = [], []
        for _ in range(self.repetitions):
            with TimedModule(self.generator.unet, self.device) as timed:
                total = timed_call(self._sample, self.device)
            seconds.append(timed.seconds)
            shares.append(timed.seconds / total)
        roofs = measured_roofs(self.generator.unet, self._unet_batch(), self.device, self.repetitions)
        return Utilisation(
            unet_flops=in_unet.flops,
            unet_share_of_flops=in_unet.flops / everywhere.get_total_flops(),
            unet_share_of_time=median(shares),
            rate=in_unet.flops / median(seconds),
            roofs=roofs,
        )

    def compare(
        self, name: str, ours: Side, plain: Side, note: str, goal: float | None, equal: bool = True
    ) -> SpeedComparison:
        return SpeedComparison(
            name, **compared(ours, plain, self.device, self.repetitions), note=note, goal=goal, equal=equal
        )

    def sample(self, generator: StableDiffusion) -> Tensor:
        """Draw (B, 3, H, W) images of the bench's prompts."""
        return generator.sample(self.texts, self.seeds, self.num_steps)

    def _sample(self) -> Tensor:
        return self.sample(self.generator)

    def _stock_images(self, pipeline: Any, part: slice, noise: Tensor) -> Tensor:
        """Draw (B, 3, H, W) images in [0, 1] with the stock pipeline."""
        drawn = pipeline(
            self.texts[part],
            height=self.config.image_px,
            width=self.config.image_px,
            num_inference_steps=self.num_steps,
            guidance_scale=self.config.guidance_scale,
            negative_prompt=[self.config.negative_prompt] * len(noise),
            latents=noise,
            output_type="pt",
        )
        return torch.stack(list(drawn.images)).float().cpu()

    def _tuner(self, generator: StableDiffusion, **others: Any) -> Tuner:
        config = self.params.tune_text_encoder.model_copy(update={"num_updates": FOREVER, **others})
        clip = self.params.clip
        scorer = LabelScorer(clip.discriminator.load(self.device), self.unseen, clip.prompt_template)
        return new_tuner(generator, scorer, self.prompts, config, self.label_space, self.params.seed)

    def _unet_batch(self) -> int:
        return len(self.texts) * (2 if self.config.guidance_scale > 1 else 1)


def settings(bench: PipelineBenchmark) -> dict[str, Any]:
    """Return what the figures of a page have in common."""
    return {
        "repetitions": bench.repetitions,
        "device": str(bench.device),
        "dtype": bench.config.dtype,
        "model": bench.config.model,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": processor(),
    }


def stored(path: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures that were measured before under the same settings, or none."""
    content = read_figures(path)
    return content if content.get("settings") == wanted else {"settings": dict(wanted), "comparisons": {}}


def as_json(comparison: SpeedComparison) -> dict[str, Any]:
    return asdict(comparison) | {"ratio": comparison.ratio, "date": date.today().isoformat()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", help="comparisons to run (default: all)")
    parser.add_argument("--repetitions", type=int, default=5, help="turns per side (default 5)")
    parser.add_argument("--judged", type=int, default=512, help="images per side that the judge scores (default 512)")
    parser.add_argument("--output", type=Path, default=Path("reports/bench.json"))
    parser.add_argument("--write-docs", action="store_true", help="write the table of docs/performance.md")
    options = parser.parse_args(arguments)

    bench = PipelineBenchmark(load_params(), options.repetitions, options.judged)
    if unknown := sorted(set(options.parts or ()) - set(bench.parts)):
        parser.error(f"no parts {unknown}: choose from {list(bench.parts)}")
    figures = stored(options.output, settings(bench))
    for part in bench.parts if options.parts is None else options.parts:
        comparison = bench.parts[part]()
        print(f"{part}: {comparison.ratio:.1f}x", flush=True)
        figures["comparisons"][part] = as_json(comparison)
        store_figures(figures, options.output)
    if options.parts is None or "utilisation" not in figures:
        use = bench.utilisation()
        figures["utilisation"] = asdict(use) | {"mfu": use.mfu, "goal": MFU_GOAL[bench.device.type]}
        store_figures(figures, options.output)
    figures["comparisons"] = {part: row for part in bench.parts if (row := figures["comparisons"].get(part))}
    print(table(figures), f"written to {options.output}", sep="\n")
    if options.write_docs:
        write_docs(figures)


if __name__ == "__main__":
    main()
