"""The stages' own inner loops on models of real size: cost of one run of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from plain_ways import PUBLISHED_STEPS, PublishedLoop, checkpointed_plainly, drawn_and_stored
from real_models import MeasuredModels, random_clip, random_components, random_llm
from stock import bench_prompts
from timing import FOREVER, Side, matmul_roofs, measured_roofs, peak_bytes, seconds_per_sample, timed_call
from torch import Tensor, nn

from tailorset.classifiers.dual_prompt import on_clip
from tailorset.clip.model import Clip
from tailorset.clip.scorer import LabelScorer
from tailorset.compute.flops import flop_counter
from tailorset.compute.memory import enforce_budget, free_memory
from tailorset.generation.studio import Studio
from tailorset.generators.parts.schedulers import build_scheduler
from tailorset.generators.stable_diffusion import StableDiffusion
from tailorset.project.params import Params
from tailorset.prompts.wording import dialogue
from tailorset.records import LabelSpace, Prompt
from tailorset.seeding import sample_seed
from tailorset.storage.image_set import ImageSet
from tailorset.training.loop import train_epochs
from tailorset.tuning.settings import TuneTextEncoder
from tailorset.tuning.tuner import Tuner, new_tuner

STOCK, STOCK_BATCHED = "the stock pipeline one by one", "the stock pipeline in batches"
PUBLISHED_LOOP, FULL_GRADIENT = "the published loop", "full back-propagation"
TEXTS_AGAIN, ONE_BY_ONE = "texts encoded for each image", "one by one"


@dataclass(frozen=True)
class Amounts:
    """Amounts of each stage per run; tuning_gb: memory limit of tuning, 0 = no limit."""

    image_px: int
    steps: int
    published_steps: int
    drawn: int
    tuning_steps: int
    tuned: int
    fully_tuned: int
    tuning_gb: int
    scored: int
    trained: int
    replies: int
    new_tokens: int


@dataclass(frozen=True)
class PartCost:
    """Cost of a part. flops: of a sample; mfu: share of `roof`, the best rate of matmuls and convolutions, FLOP/s;
    times: speed-up over other ways to do the same, per sample."""

    what: str
    samples: str
    peak_bytes: int
    samples_per_s: float
    flops: float
    mfu: float
    roof: float
    times: Mapping[str, float] = field(default_factory=dict)


class RealSizeBenchmark:
    """The parts; each builds its models, runs and releases them."""

    def __init__(
        self, params: Params, models: MeasuredModels, amounts: Amounts, device: torch.device, repetitions: int
    ) -> None:
        self.params, self.models, self.amounts = params, models, amounts
        self.device, self.repetitions = device, repetitions
        self.label_space = LabelSpace.load(params.label_space)
        chosen: dict[str, Any] = {"image_px": amounts.image_px}
        if device.type == "cpu":  # half precision is slower there, and compiling takes longer than the measurement
            chosen |= {"dtype": "float32", "compile": False}
        self.generator_config: Any = params.generator.config.model_copy(update=chosen)

    @property
    def parts(self) -> Mapping[str, Callable[[], PartCost]]:
        """All parts by their name on the command line; `fast` draws with the settings of another preset."""
        drawing = {"generation": self.generation, "fast": self.generation}
        return drawing | {"tuning": self.tuning, "filter": self.filter, "classifier": self.classifier, "llm": self.llm}

    def generation(self) -> PartCost:
        """StableDiffusion.sample, against the stock pipeline and, with scores and files, against the published loop."""
        generator, count, steps = self._generator(), self.amounts.drawn, self.amounts.steps
        prompts = bench_prompts(self.label_space, count)
        texts = [prompt.text for prompt in prompts]
        seeds = [sample_seed(self.params.seed, "bench", i) for i in range(count)]
        loop = self.amounts.published_steps
        shorter = "" if loop == PUBLISHED_STEPS else f"; the published loop with {loop} of its {PUBLISHED_STEPS} steps"
        what = f"SD 2.1 shape, {self._drawing(steps)}, batch {count}{shorter}"
        sample = Side(lambda: generator.sample(texts, seeds, steps), count)
        cost = self._cost(what, "images", sample, self._parts(generator), self._unet_roof(generator))
        ways = {STOCK: self._stock(1)} | ({STOCK_BATCHED: self._stock(count)} if count > 1 else {})
        times = self._times(sample, ways)
        with TemporaryDirectory() as folder:
            full_stack, published = self._full_stack(generator, prompts, Path(folder)), self._published(Path(folder))
            return replace(cost, times=times | self._times(full_stack, {PUBLISHED_LOOP: published}))

    def tuning(self) -> PartCost:
        """An update of the text encoder's adapter, against the gradient through all steps; both checkpointed."""
        amounts, block = self.amounts, self.params.tune_text_encoder
        clip, generator = random_clip(self.models.discriminator, self.device), self._generator()
        roof, held = self._unet_roof(generator), [*self._parts(generator), clip.model]
        tuner = self._tuner(generator, clip, block, batch_size=amounts.tuned)
        with limited_to(amounts.tuning_gb, self.device):
            cost = self._cost("", "images", Side(partial(next, tuner.updates()), amounts.tuned), held, roof)
        limit = f", {tuner.batches.size} at once within {amounts.tuning_gb} GB" if amounts.tuning_gb else ""
        drawing = f"{self._drawing(amounts.tuning_steps)}, K = {block.backprop_steps}, batch {amounts.tuned}{limit}"

        plainly = block.model_copy(update={"gradient_checkpointing": False})
        generator = checkpointed_plainly(self._generator())
        steps = {"batch_size": amounts.fully_tuned, "backprop_steps": amounts.tuning_steps}
        updates = self._tuner(generator, clip, plainly, **steps).updates()
        next(updates)
        seconds = median(timed_call(partial(next, updates), self.device) for _ in range(self.repetitions))
        times = {FULL_GRADIENT: seconds / amounts.fully_tuned * cost.samples_per_s}
        return replace(cost, what=f"SD 2.1 shape and {self.models.discriminator}, {drawing}", times=times)

    def _tuner(self, generator: StableDiffusion, clip: Clip, block: TuneTextEncoder, **others: Any) -> Tuner:
        settings = {"num_updates": FOREVER, "num_inference_steps": self.amounts.tuning_steps, **others}
        config = block.model_copy(update=settings)
        scorer = LabelScorer(clip, self.label_space.unseen, self.params.clip.prompt_template)
        prompts = bench_prompts(self.label_space, 16)
        return new_tuner(generator, scorer, prompts, config, self.label_space, self.params.seed)

    def filter(self) -> PartCost:
        """Scores of generated images by the discriminator, and the filter's decisions on them."""
        clip, count = random_clip(self.models.discriminator, self.device), self.amounts.scored
        unseen, side = self.label_space.unseen, self.generator_config.image_px
        texts = clip.encode_texts(unseen, self.params.clip.prompt_template)
        block = self.params.filter_images
        rule = block.build(self.label_space)
        requested = [prompt.labels for prompt in bench_prompts(self.label_space, count)]
        pixels = self._pixels(count, side).to(self.device)

        @torch.no_grad()
        def decide(part: slice, texts: Tensor) -> None:
            rule.decide(clip.logits(pixels[part].float() / 255, texts).float().cpu(), requested[part])

        def work() -> None:
            decide(slice(count), texts)

        def one_by_one() -> None:
            decide(slice(1), clip.encode_texts(unseen, self.params.clip.prompt_template))

        what = f"{self.models.discriminator}, {side} px images, {len(unseen)} labels, batch {count}, float32"
        cost = self._cost(what, "images", Side(work, count), [clip.model], self._matmul_roof(torch.float32))
        return replace(cost, times=self._times(Side(work, count), {TEXTS_AGAIN: Side(one_by_one)}))

    def classifier(self) -> PartCost:
        """A training step of the dual prompts and the fusion: augmentation, both passes, optimisers."""
        config: Any = self.params.train_classifier.config.model_copy(update={"batch_size": self.amounts.trained})
        clip, count = random_clip(self.models.backbone, self.device), self.amounts.trained
        classifier = on_clip(config, self.label_space, clip)
        names = self.label_space.names
        targets = torch.randint(0, 2, (count, len(names)), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
        data = ImageSet(tuple(map(str, range(count))), self._pixels(count, classifier.image_px), targets)
        optimizers = classifier.optimizers()

        def work() -> None:
            next(train_epochs(classifier, data, optimizers, config, self.params.seed))

        what = f"{self.models.backbone}, {classifier.image_px} px, {len(names)} labels, batch {count}, float32"
        roof = self._matmul_roof(torch.float32)
        return self._cost(what, "images", Side(work, count), [classifier, clip.model], roof)

    def llm(self) -> PartCost:
        """Replies of the chat model to requests for prompts."""
        update = {"batch_size": self.amounts.replies, "max_new_tokens": self.amounts.new_tokens}
        settings: Any = self.params.write_prompts.llm.config.model_copy(update=update)
        llm, pairs = random_llm(self.models.llm, settings, self.device), self.label_space.pairs()
        dialogues = [dialogue(pairs[i % len(pairs)], 10) for i in range(self.amounts.replies)]
        seeds = [sample_seed(self.params.seed, "bench", i) for i in range(len(dialogues))]
        template = {"add_generation_prompt": True, "padding": True, "return_dict": True}
        length = len(llm.tokenizer.apply_chat_template(dialogues, **template)["input_ids"][0])
        what = (
            f"Qwen2.5 7B shape, {settings.quantization}, {length} tokens read and {settings.max_new_tokens} written,"
            f" batch {len(dialogues)}"
        )
        replies = Side(lambda: llm.reply(dialogues, seeds), len(dialogues))
        roof = self._matmul_roof(torch.bfloat16, torch.float32)  # computed by a CPU without bfloat16 units
        cost = self._cost(what, "replies", replies, [llm.model], roof)
        one_by_one = {ONE_BY_ONE: Side(lambda: llm.reply(dialogues[:1], seeds[:1]))} if len(dialogues) > 1 else {}
        return replace(cost, times=self._times(replies, one_by_one))

    def _cost(self, what: str, samples: str, side: Side, held: Sequence[nn.Module], roof: float) -> PartCost:
        """The first run compiles and finds the batch that fits; the next counts FLOPs, which needs it uncompiled."""
        side.work()
        with torch.compiler.set_stance("force_eager"), flop_counter(unknown_flops()) as counter:
            side.work()
        peak = peak_bytes(side.work, self.device)
        seconds = median(timed_call(side.work, self.device) for _ in range(self.repetitions)) / side.num_samples
        flops = counter.get_total_flops() / side.num_samples
        weights = {tensor.data_ptr(): tensor.nbytes for module in held for tensor in held_tensors(module)}
        return PartCost(what, samples, peak + sum(weights.values()), 1 / seconds, flops, flops / seconds / roof, roof)

    def _times(self, ours: Side, others: Mapping[str, Side]) -> dict[str, float]:
        """Speed-up of ours over each other way, in alternation."""
        seconds = seconds_per_sample({"": ours, **others}, self.device, self.repetitions)
        return {name: seconds[name] / seconds[""] for name in others}

    def _generator(self) -> StableDiffusion:
        config = self.generator_config
        components = random_components(self.models.diffusion, getattr(torch, config.dtype), self.device)
        return StableDiffusion(config, components, self.device)

    def _parts(self, generator: StableDiffusion) -> list[nn.Module]:
        return [generator.text_encoders, generator.unet, generator.vae]

    def _drawing(self, steps: int) -> str:
        return f"{self.generator_config.image_px} px, {steps} steps, {self.generator_config.dtype}"

    def _pipeline(self, dtype: torch.dtype, scheduler: str) -> Any:
        """diffusers' own pipeline in a single dtype, as after loading it with a dtype."""
        from diffusers import StableDiffusionPipeline

        parts = random_components(self.models.diffusion, dtype, self.device)
        pipeline: Any = StableDiffusionPipeline(
            parts.vae,
            parts.text_encoders["text_encoder"],
            parts.tokenizers[0],
            parts.unet,
            build_scheduler(scheduler, parts.scheduler_config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).to(dtype)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _stock(self, batch: int) -> Side:
        """The stock pipeline with the same solver and steps."""
        config = self.generator_config
        pipeline = self._pipeline(getattr(torch, config.dtype), config.scheduler)
        texts = [prompt.text for prompt in bench_prompts(self.label_space, batch)]

        def draw() -> None:
            pipeline(
                texts,
                negative_prompt=[config.negative_prompt] * batch,
                guidance_scale=config.guidance_scale,
                height=config.image_px,
                width=config.image_px,
                num_inference_steps=self.amounts.steps,
                output_type="pt",
            )

        return Side(draw, batch)

    def _full_stack(self, generator: StableDiffusion, prompts: Sequence[Prompt], folder: Path) -> Side:
        """Draw, score by two CLIPs and store, as generate_images does."""
        discriminator, judge = (random_clip(self.models.discriminator, self.device) for _ in range(2))
        template, seed, steps = self.params.clip.prompt_template, self.params.seed, self.amounts.steps
        unseen = self.label_space.unseen
        studio = Studio(generator, discriminator, judge, unseen, template, seed, steps, len(prompts))
        return drawn_and_stored(studio, prompts, folder)

    def _published(self, folder: Path) -> Side:
        """An image of the published loop, guided as published."""
        config = self.generator_config.model_copy(update={"guidance_scale": 7.5})
        pipeline, clip = self._pipeline(torch.float32, "euler"), random_clip(self.models.discriminator, self.device)
        template, steps = self.params.clip.prompt_template, self.amounts.published_steps
        loop = PublishedLoop(pipeline, config, clip, self.label_space.unseen, template, folder, steps)
        (prompt,) = bench_prompts(self.label_space, 1)
        return Side(lambda: loop.draw(prompt.text, self.params.seed))

    def _unet_roof(self, generator: StableDiffusion) -> float:
        return max(measured_roofs(generator.unet, 2, self.device, self.repetitions).values())

    def _matmul_roof(self, *dtypes: torch.dtype) -> float:
        return max(max(matmul_roofs(dtype, self.device, self.repetitions).values()) for dtype in dtypes)

    def _pixels(self, count: int, side: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.params.seed)
        return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def unknown_flops() -> dict[Any, Callable[..., int]]:
    """FLOPs of operations that torch's counter does not include.

    bitsandbytes' products of (..., K) with a packed (N, K), and the attention layer of (B, T, D) that torch runs as one
    operation if no gradient is needed.
    """
    import bitsandbytes  # noqa: F401 - registers the operations

    def product(inputs: Sequence[int], _: object, shape: Sequence[int], *args: object, **keys: object) -> int:
        return 2 * math.prod(inputs) * shape[0]

    def attention(query: Sequence[int], *args: object, **keys: object) -> int:
        batch, tokens, width = query
        return 8 * batch * tokens * width**2 + 4 * batch * tokens**2 * width  # four projections, two products

    of_4bit = dict.fromkeys((torch.ops.bitsandbytes.gemm_4bit, torch.ops.bitsandbytes.gemv_4bit), product)
    return of_4bit | {torch.ops.aten._native_multi_head_attention: attention}


def held_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, and the scales of 4-bit weights."""
    yield from module.buffers()
    for weight in module.parameters():
        yield weight
        if state := getattr(weight, "quant_state", None):
            yield state.absmax


def amounts_of(params: Params, device: torch.device, image_px: int | None, steps: int | None) -> Amounts:
    """The preset's amounts on a GPU; on a CPU amounts that take minutes."""
    draw, tune = params.generate_images, params.tune_text_encoder
    llm, trained = params.write_prompts.llm.config.model_dump(), params.train_classifier.config.model_dump()
    side = image_px or params.generator.config.model_dump()["image_px"]
    if device.type == "cpu":
        few = steps or 2
        return Amounts(
            side,
            few,
            published_steps=2 * few,
            drawn=1,
            tuning_steps=few,
            tuned=1,
            fully_tuned=1,
            tuning_gb=0,
            scored=32,
            trained=trained["batch_size"],
            replies=1,
            new_tokens=2,
        )
    return Amounts(
        side,
        steps or draw.num_inference_steps,
        PUBLISHED_STEPS,
        draw.batch_size,
        steps or tune.num_inference_steps,
        tune.batch_size,
        fully_tuned=2,
        tuning_gb=16,
        scored=512,
        trained=trained["batch_size"],
        replies=llm["batch_size"],
        new_tokens=llm["max_new_tokens"],
    )


@contextmanager
def limited_to(gb: int, device: torch.device) -> Iterator[None]:
    """Limit on the memory of a GPU, in GB of 10^9 bytes; 0 = none."""
    free_memory()
    enforce_budget(gb or None, device)
    try:
        yield
    finally:
        if gb:
            torch.cuda.set_per_process_memory_fraction(1.0)
