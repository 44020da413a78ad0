"""The stages' own inner loops on models of real size: what one run of each takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from real_models import Models, random_clip, random_components, random_llm
from stock import bench_prompts
from timing import FOREVER, matmul_roofs, measured_roofs, peak_bytes, timed_call
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tailorset.classifier_training import train_epochs
from tailorset.classifiers.dual_prompt import on_clip
from tailorset.generators.stable_diffusion import StableDiffusion
from tailorset.image_set import ImageSet
from tailorset.painter import dialogue
from tailorset.params import Params
from tailorset.plugins import load_plugin
from tailorset.records import LabelSpace
from tailorset.schedulers import build_scheduler
from tailorset.scorer import Scorer
from tailorset.seeding import sample_seed
from tailorset.text_encoder import new_tuner


@dataclass(frozen=True)
class Amounts:
    """How much of each stage runs at a time."""

    image_px: int
    steps: int
    drawn: int
    tuning_steps: int
    tuned: int
    scored: int
    trained: int
    replies: int
    new_tokens: int


@dataclass(frozen=True)
class Row:
    """What a part took. flops: of a sample; mfu: share of `roof`, the best rate of matmuls and convolutions, FLOP/s;
    times_stock: how many times faster than the stock pipeline, which draws one image at a time."""

    what: str
    sample: str
    peak_bytes: int
    samples_per_s: float
    flops: float
    mfu: float
    roof: float
    times_stock: float | None = None


class Bench:
    """The parts; each builds its models, runs and lets go of them."""

    def __init__(
        self, params: Params, models: Models, amounts: Amounts, device: torch.device, repetitions: int
    ) -> None:
        self.params, self.models, self.amounts = params, models, amounts
        self.device, self.repetitions = device, repetitions
        self.label_space = LabelSpace.load(params.label_space)
        chosen = {"image_px": amounts.image_px}
        chosen |= {"dtype": "float32"} if device.type == "cpu" else {}  # half precision is slower there
        self.generator_config: Any = params.generator.config.model_copy(update=chosen)

    def generation(self) -> Row:
        """StableDiffusion.sample, and the stock pipeline on the same parts, one prompt at a time."""
        generator, count = self._generator(), self.amounts.drawn
        texts = [prompt.text for prompt in bench_prompts(self.label_space, count)]
        seeds = [sample_seed(self.params.seed, "bench", i) for i in range(count)]
        what = f"SD 2.1 shape, {self._drawing(self.amounts.steps)}, batch {count}"
        work = lambda: generator.sample(texts, seeds, self.amounts.steps)  # noqa: E731
        row = self._row(what, "image", count, work, self._parts(generator), self._unet_roof(generator))
        stock = self._stock_pipeline(generator)
        stock()
        seconds = median(timed_call(stock, self.device) for _ in range(self.repetitions))
        return replace(row, times_stock=seconds * row.samples_per_s)

    def tuning(self) -> Row:
        """An update of the text encoder's adapter."""
        block, count, generator = self.params.tune_text_encoder, self.amounts.tuned, self._generator()
        clip = random_clip(self.models.discriminator, self.device)
        scorer = Scorer(clip, self.label_space.unseen, self.params.clip.prompt_template)
        steps = self.amounts.tuning_steps
        others = {"num_updates": FOREVER, "batch_size": count, "num_inference_steps": steps}
        prompts = bench_prompts(self.label_space, max(count, 16))
        updates = new_tuner(generator, scorer, prompts, block, self.label_space, self.params.seed, **others).updates()
        drawing = f"{self._drawing(steps)}, K = {block.backprop_steps}"
        what = f"SD 2.1 shape and {self.models.discriminator}, {drawing}, batch {count}"
        held = [*self._parts(generator), clip.model]
        return self._row(what, "image", count, lambda: next(updates), held, self._unet_roof(generator))

    def filter(self) -> Row:
        """Scores of generated images by the discriminator, and what the filter decides on them."""
        clip, count = random_clip(self.models.discriminator, self.device), self.amounts.scored
        unseen, side = self.label_space.unseen, self.generator_config.image_px
        texts = clip.encode_texts(unseen, self.params.clip.prompt_template)
        block = self.params.filter_images
        rule = load_plugin("filters", block.name).build(block.config, self.label_space)
        requested = [prompt.labels for prompt in bench_prompts(self.label_space, count)]
        pixels = self._pixels(count, side).to(self.device)

        @torch.no_grad()
        def work() -> None:
            rule.decide(clip.logits(pixels.float() / 255, texts).float().cpu(), requested)

        what = f"{self.models.discriminator}, {side} px images, {len(unseen)} labels, batch {count}, float32"
        return self._row(what, "image", count, work, [clip.model], self._matmul_roof(torch.float32))

    def classifier(self) -> Row:
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
        return self._row(what, "image", count, work, [classifier, clip.model], self._matmul_roof(torch.float32))

    def llm(self) -> Row:
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
        work = lambda: llm.reply(dialogues, seeds)  # noqa: E731
        roof = self._matmul_roof(torch.bfloat16, torch.float32)  # which a CPU without bfloat16 units computes in
        return self._row(what, "reply", len(dialogues), work, [llm.model], roof)

    def _row(
        self, what: str, sample: str, count: int, work: Callable[[], object], held: Sequence[nn.Module], roof: float
    ) -> Row:
        """The first run, which warms up, counts FLOPs and memory; the next ones are timed."""
        with FlopCounterMode(display=False, custom_mapping=unknown_flops()) as counter:
            peak = peak_bytes(work, self.device)
        seconds = median(timed_call(work, self.device) for _ in range(self.repetitions)) / count
        flops = counter.get_total_flops() / count
        weights = {tensor.data_ptr(): tensor.nbytes for module in held for tensor in held_tensors(module)}
        return Row(what, sample, peak + sum(weights.values()), 1 / seconds, flops, flops / seconds / roof, roof)

    def _generator(self) -> StableDiffusion:
        config = self.generator_config
        components = random_components(self.models.diffusion, getattr(torch, config.dtype), self.device)
        return StableDiffusion(config, components, self.device)

    def _parts(self, generator: StableDiffusion) -> list[nn.Module]:
        return [generator.text_encoder, generator.unet, generator.vae]

    def _drawing(self, steps: int) -> str:
        return f"{self.generator_config.image_px} px, {steps} steps, {self.generator_config.dtype}"

    def _stock_pipeline(self, generator: StableDiffusion) -> Callable[[], object]:
        """Draws one image; all of it in the generator's dtype, as loading a pipeline with a dtype makes it."""
        from diffusers import StableDiffusionPipeline

        config = self.generator_config
        scheduler = build_scheduler(config.scheduler, self.models.diffusion.scheduler)
        pipeline: Any = StableDiffusionPipeline(
            generator.vae, generator.text_encoder, generator.tokenizer, generator.unet, scheduler,
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        ).to(generator.unet.dtype)  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        (prompt,) = bench_prompts(self.label_space, 1)
        return lambda: pipeline(
            prompt.text, height=config.image_px, width=config.image_px, num_inference_steps=self.amounts.steps,
            guidance_scale=config.guidance_scale, negative_prompt=config.negative_prompt, output_type="pt",
        )  # fmt: skip

    def _unet_roof(self, generator: StableDiffusion) -> float:
        return max(measured_roofs(generator.unet, 2, self.device, self.repetitions).values())

    def _matmul_roof(self, *dtypes: torch.dtype) -> float:
        return max(max(matmul_roofs(dtype, self.device, self.repetitions).values()) for dtype in dtypes)

    def _pixels(self, count: int, side: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.params.seed)
        return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def unknown_flops() -> dict[Any, Callable[..., int]]:
    """FLOPs of the operations that torch's counter does not know and takes for free.

    bitsandbytes' products of (..., K) with a packed (N, K), and the attention layer of (B, T, D) that torch runs as one
    operation where no gradient is wanted.
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
    """The preset's on a GPU; on a CPU what takes it minutes."""
    draw, tune = params.generate_images, params.tune_text_encoder
    llm, trained = params.write_prompts.llm.config.model_dump(), params.train_classifier.config.model_dump()
    side = image_px or params.generator.config.model_dump()["image_px"]
    if device.type == "cpu":
        return Amounts(side, steps or 2, 1, steps or 2, 1, 32, trained["batch_size"], replies=1, new_tokens=2)
    return Amounts(
        side, steps or draw.num_inference_steps, draw.batch_size, steps or tune.num_inference_steps, tune.batch_size,
        scored=512, trained=trained["batch_size"], replies=llm["batch_size"], new_tokens=llm["max_new_tokens"],
    )  # fmt: skip
