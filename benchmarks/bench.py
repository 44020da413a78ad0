"""How fast this project's loops are against the stock way to do the same: `make bench`.

Both sides of a comparison run in this process, turn about, after a warm-up each; medians count. The models and
settings are those of params.yaml.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from timing import FOREVER, TimedModule, interleaved, measured_roofs, timed_call
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.clip import Clip
from tailorset.generators.stable_diffusion import StableDiffusion, build
from tailorset.params import Params, load_params
from tailorset.records import LabelSpace, Prompt, prompt_id
from tailorset.schedulers import build_scheduler
from tailorset.scorer import Scorer
from tailorset.seeding import sample_seed
from tailorset.stage import resolve_device
from tailorset.text_encoder import Tuner, new_tuner

GENERATION_GOAL = 3.0
STOCK_IMAGES = 4  # images a turn of the one-at-a-time sides; times are per image


@dataclass(frozen=True)
class Comparison:
    """Median seconds per image of both sides, and what else is to be said."""

    name: str
    ours_s: float
    stock_s: float
    note: str = ""
    goal: float | None = None

    @property
    def ratio(self) -> float:
        return self.stock_s / self.ours_s


@dataclass(frozen=True)
class Utilisation:
    """Achieved and best measured floating-point rate, in FLOP/s; `roofs` has the rate of each candidate."""

    unet_flops: float
    unet_share_of_flops: float
    unet_share_of_time: float
    rate: float
    roofs: dict[str, float]

    @property
    def mfu(self) -> float:
        return self.rate / max(self.roofs.values())


class Bench:
    """The models of params.yaml, and prompts for the unseen labels."""

    def __init__(self, params: Params, repetitions: int) -> None:
        self.params, self.repetitions = params, repetitions
        self.device = resolve_device(params.device)
        self.config: Any = params.generator.config
        self.generator = build(self.config, self.device)
        self.label_space = LabelSpace.load(params.label_space)
        self.unseen = self.label_space.unseen
        self.prompts = bench_prompts(self.label_space, params.generate_images.batch_size)
        self.texts = [prompt.text for prompt in self.prompts]
        self.seeds = [sample_seed(params.seed, "bench", i) for i in range(len(self.prompts))]
        self.num_steps = params.generate_images.num_inference_steps

    def generation(self) -> tuple[Comparison, float]:
        """Our batched sampling against the stock pipeline, one prompt at a time; and their largest pixel difference."""
        pipeline = stock_pipeline(self.config, self.device)
        noise = stock_noise(self.generator, self.seeds[:STOCK_IMAGES])
        ours = self._sample()[:STOCK_IMAGES]
        stock = torch.stack([self._stock_image(pipeline, i, noise) for i in range(len(noise))])
        seconds = self._turns(
            ours=(self._sample, len(self.texts)),
            stock=(lambda: [self._stock_image(pipeline, i, noise) for i in range(len(noise))], len(noise)),
        )
        difference = float((ours.cpu() - stock).abs().max())
        note = f"batch {len(self.texts)} against 1, {self.num_steps} steps; largest pixel difference {difference:.1e}"
        return Comparison(
            "generation vs StableDiffusionPipeline", **seconds, note=note, goal=GENERATION_GOAL
        ), difference

    def scoring(self) -> Comparison:
        """Text features once and images in batches, against texts encoded again for each image."""
        clip, template = self._discriminator(), self.params.clip.prompt_template
        images = torch.rand(len(self.texts), 3, self.config.image_px, self.config.image_px, device=self.device)
        text_features = clip.encode_texts(self.unseen, template)

        @torch.no_grad()
        def ours() -> None:
            clip.logits(images, text_features)

        @torch.no_grad()
        def one_at_a_time() -> None:
            for i in range(min(STOCK_IMAGES, len(images))):
                clip.logits(images[i : i + 1], clip.encode_texts(self.unseen, template))

        seconds = self._turns(ours=(ours, len(images)), stock=(one_at_a_time, min(STOCK_IMAGES, len(images))))
        note = f"{len(self.unseen)} labels, batch {len(images)} against 1"
        return Comparison("filter scoring vs texts encoded per image", **seconds, note=note)

    def tuning(self) -> Comparison:
        """An update as configured, against the full gradient of the finished image with checkpointing."""
        settings = self.params.tune_text_encoder
        steps, size = settings.num_inference_steps, settings.batch_size
        full = build(self.config, self.device)
        full.enable_gradient_checkpointing()
        ours = self._tuner(self.generator).updates()
        everything = self._tuner(full, backprop_steps=steps, stop_after=None).updates()
        seconds = self._turns(ours=(lambda: next(ours), size), stock=(lambda: next(everything), size))
        note = f"backprop_steps {settings.backprop_steps} against {steps}, batch {size}"
        return Comparison("tuning vs full back-propagation", **seconds, note=note)

    def utilisation(self) -> Utilisation:
        """Rate of the UNet while sampling, against the best rate of matmuls and of its own convolutions."""
        with FlopCounterMode(display=False) as everywhere:
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

    def _sample(self) -> Tensor:
        return self.generator.sample(self.texts, self.seeds, self.num_steps)

    def _stock_image(self, pipeline: Any, index: int, noise: Tensor) -> Tensor:
        """(3, H, W) in [0, 1]."""
        drawn = pipeline(
            self.texts[index],
            height=self.config.image_px,
            width=self.config.image_px,
            num_inference_steps=self.num_steps,
            guidance_scale=self.config.guidance_scale,
            negative_prompt=self.config.negative_prompt,
            latents=noise[index : index + 1],
            output_type="pt",
        )
        return drawn.images[0].float().cpu()

    def _turns(self, **sides: tuple[Callable[[], object], int]) -> dict[str, float]:
        """Median seconds per image of each side, under `<side>_s`."""
        medians = interleaved({side: work for side, (work, _) in sides.items()}, self.device, self.repetitions)
        return {f"{side}_s": medians[side] / num_images for side, (_, num_images) in sides.items()}

    def _discriminator(self) -> Clip:
        return self.params.clip.discriminator.load(self.device)

    def _tuner(self, generator: StableDiffusion, **others: Any) -> Tuner:
        block, seed = self.params.tune_text_encoder, self.params.seed
        scorer = Scorer(self._discriminator(), self.unseen, self.params.clip.prompt_template)
        return new_tuner(generator, scorer, self.prompts, block, self.label_space, seed, num_updates=FOREVER, **others)

    def _unet_batch(self) -> int:
        return len(self.texts) * (2 if self.config.guidance_scale > 1 else 1)


def bench_prompts(label_space: LabelSpace, num_prompts: int) -> list[Prompt]:
    """The unseen pairs in turn, in plain wording."""
    pairs = label_space.pairs()
    prompts = []
    for i in range(num_prompts):
        labels = pairs[i % len(pairs)]
        words = " next to ".join(f"a {label_space.prompt_names(label)[0]}" for label in labels)
        prompts.append(
            Prompt(
                prompt_id=prompt_id(labels, i), text=f"a photo of {words}", labels=labels, origin="template", attempt=1
            )
        )
    return prompts


def stock_pipeline(config: Any, device: torch.device) -> Any:
    """diffusers' own pipeline with the scheduler of params.yaml, all of it in the generator's dtype."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        config.model, revision=config.revision, dtype=getattr(torch, config.dtype),
        safety_checker=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.scheduler = build_scheduler(config.scheduler, pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def stock_noise(generator: StableDiffusion, seeds: Sequence[int]) -> Tensor:
    """(B, C, h, w) the start that our generator makes of the seeds."""
    factor = 2 ** (len(generator.vae.config.block_out_channels) - 1)
    side = generator.image_px // factor
    shape = (generator.unet.config.in_channels, side, side)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(noise).to(generator.device, generator.unet.dtype)


def table(comparisons: Sequence[Comparison], use: Utilisation) -> str:
    lines = [f"{'':<44}{'ours':>10}{'stock':>10}{'ratio':>8}{'goal':>7}"]
    for row in comparisons:
        goal = f"{row.goal:.0f}x" if row.goal else ""
        times = f"{row.ours_s * 1e3:>7.1f} ms{row.stock_s * 1e3:>7.1f} ms"
        lines += [f"{row.name:<44}{times}{row.ratio:>7.1f}x{goal:>7}", f"    {row.note}"]
    roof, rate = max(use.roofs.items(), key=lambda item: item[1])
    lines += [
        f"UNet while sampling: {use.rate / 1e9:.1f} GFLOP/s, {use.mfu:.0%} of {rate / 1e9:.1f} GFLOP/s ({roof});",
        f"    of sampling, the UNet is {use.unet_share_of_flops:.0%} of FLOPs and {use.unet_share_of_time:.0%} of time",
        *(f"    {name:<40}{rate / 1e9:>8.1f} GFLOP/s" for name, rate in use.roofs.items()),
    ]
    return "\n".join(lines)


def as_json(comparisons: Sequence[Comparison], difference: float, use: Utilisation, bench: Bench) -> dict[str, Any]:
    return {
        "comparisons": [asdict(row) | {"ratio": row.ratio} for row in comparisons],
        "largest_pixel_difference": difference,
        "utilisation": asdict(use) | {"mfu": use.mfu},
        "settings": {
            "repetitions": bench.repetitions, "device": str(bench.device), "dtype": bench.config.dtype,
            "model": bench.config.model, "threads": torch.get_num_threads(),
            "torch": torch.__version__, "machine": platform.machine(),
        },
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--output", type=Path, default=Path("reports/bench.json"))
    options = parser.parse_args(arguments)

    bench = Bench(load_params(), options.repetitions)
    generation, difference = bench.generation()
    use = bench.utilisation()
    comparisons = [generation, bench.scoring(), bench.tuning()]
    print(table(comparisons, use))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    content = as_json(comparisons, difference, use, bench)
    options.output.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
