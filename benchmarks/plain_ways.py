"""The work of a stage against the plain way to do the same: one image, one reply, one label at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from stock import bench_prompts, stock_pipeline
from timing import Side, SpeedComparison
from torch import Tensor

from tailorset.classifiers.dual_prompt import DualPrompt, on_clip
from tailorset.classifiers.parts.text_towers import TextTower
from tailorset.clip.model import Clip
from tailorset.clip.scorer import LabelScorer, acceptance
from tailorset.compute.memory import ShrinkingBatches
from tailorset.evaluation.metrics import average_precisions
from tailorset.generation.quota import Draw
from tailorset.generation.studio import PlannedShard, Studio
from tailorset.generators.stable_diffusion import StableDiffusion, build
from tailorset.prompts.wording import dialogue
from tailorset.records import LabelSpace, Prompt
from tailorset.seeding import sample_seed
from tailorset.storage.image_set import ImageSet
from tailorset.storage.shards import write_shard
from tailorset.training.loop import train_epochs
from tailorset.tuning.held_out import draw_images
from tailorset.tuning.tuner import TUNING_MEMORY_REMEDY

if TYPE_CHECKING:
    from bench import PipelineBenchmark

PUBLISHED_STEPS = 50  # of the Euler solver
PLAIN_IMAGES = 2  # per turn of the published loop
CACHE_INTERVAL = 2
PLAIN_TURN = 4  # images or replies per turn of other plain ways
CONTEXT_TOKENS = 8  # the toybox's tokenizer cuts long words into many; the tower's input is as long for any number
SAME_ACCEPTANCE = 0.02
SCORES = (40_000, 81)
SAME_PRECISION = 1e-6


def checkpointed_plainly(generator: StableDiffusion) -> StableDiffusion:
    """With diffusers' own gradient checkpointing of UNet and decoder."""
    generator.unet.enable_gradient_checkpointing()
    generator.vae.enable_gradient_checkpointing()
    return generator


def drawn_and_stored(studio: Studio, prompts: Sequence[Prompt], folder: Path) -> Side:
    """A shard as generate_images makes it: one image per prompt, drawn, scored and written."""
    draws = [Draw(prompt, 0, prompt.labels[0]) for prompt in prompts]

    def make() -> None:
        _, samples = studio.draw_shard(PlannedShard("bench", draws))
        write_shard(folder / "bench.tar", samples)

    return Side(make, len(draws))


@dataclass(frozen=True)
class PublishedLoop:
    """Image by image as the published code draws and scores: float32 weights (on a GPU with autocast), a PNG written
    and read back, the texts of the labels encoded again. config: the generator's, for size and guidance."""

    pipeline: Any
    config: Any
    clip: Clip
    labels: Sequence[str]
    template: str
    folder: Path
    num_steps: int

    @torch.no_grad()
    def draw(self, text: str, seed: int) -> None:
        device, path = self.clip.device, self.folder / "published.png"
        with torch.autocast(device.type, enabled=device.type == "cuda"):
            drawn = self.pipeline(
                text,
                height=self.config.image_px,
                width=self.config.image_px,
                num_inference_steps=self.num_steps,
                guidance_scale=self.config.guidance_scale,
                generator=torch.Generator().manual_seed(seed),
            )
            drawn.images[0].save(path)
            pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None].float() / 255
            self.clip.logits(pixels, self.clip.encode_texts(self.labels, self.template))


def full_stack(bench: PipelineBenchmark) -> SpeedComparison:
    """Draw, score and store as generate_images does, against the published loop of 50 Euler steps."""
    params, device = bench.params, bench.device
    clip, template = params.clip.discriminator.load(device), params.clip.prompt_template
    judge = params.clip.judge.load(device)
    studio = Studio(
        bench.generator, clip, judge, bench.unseen, template, params.seed, bench.num_steps, len(bench.prompts)
    )
    published = bench.config.model_copy(update={"scheduler": "euler", "dtype": "float32"})
    pipeline = stock_pipeline(published, device)
    with TemporaryDirectory() as folder:
        published_loop = PublishedLoop(pipeline, published, clip, bench.unseen, template, Path(folder), PUBLISHED_STEPS)

        def loop() -> None:
            for index in range(PLAIN_IMAGES):
                published_loop.draw(bench.texts[index], bench.seeds[index])

        scorer = LabelScorer(judge, bench.unseen, template)
        shares = [
            _judged(generator, scorer, bench, steps)
            for generator, steps in ((bench.generator, bench.num_steps), (build(published, device), PUBLISHED_STEPS))
        ]
        note = (
            f"batch {len(bench.prompts)} and {bench.num_steps} steps against 1 and {PUBLISHED_STEPS}; the judge accepts"
            f" {shares[0]:.1%} against {shares[1]:.1%} of {bench.num_judged} images"
        )
        name, goal = "drawing, scoring, storing, against the published loop", bench.goals["full_stack"]
        ours, plain = drawn_and_stored(studio, bench.prompts, Path(folder)), Side(loop, PLAIN_IMAGES)
        return bench.compare(name, ours, plain, note, goal, equal=shares[0] >= shares[1] - SAME_ACCEPTANCE)


def features_kept(bench: PipelineBenchmark) -> SpeedComparison:
    """The same steps; in every second one only the UNet's outermost blocks run."""
    settings = ({"compile": False, "cache_interval": interval} for interval in (1, CACHE_INTERVAL))
    whole, kept = (build(bench.config.model_copy(update=update), bench.device) for update in settings)
    judge = bench.params.clip.judge.load(bench.device)
    scorer = LabelScorer(judge, bench.unseen, bench.params.clip.prompt_template)
    shares = [_judged(generator, scorer, bench, bench.num_steps) for generator in (kept, whole)]
    ours, plain = (Side(partial(bench.sample, generator), len(bench.texts)) for generator in (kept, whole))
    difference = bench.sample(kept) - bench.sample(whole)
    psnr = -10 * float(difference.square().mean().log10())
    note = (
        f"inner blocks in 1 of every {CACHE_INTERVAL} steps, {bench.num_steps} steps; PSNR {psnr:.0f} dB; the judge"
        f" accepts {shares[0]:.1%} against {shares[1]:.1%} of {bench.num_judged} images"
    )
    name = "drawing with `generator.cache_interval`, against the whole UNet in every step"
    return bench.compare(name, ours, plain, note, goal=None, equal=shares[0] >= shares[1] - SAME_ACCEPTANCE)


def filtering(bench: PipelineBenchmark, labels: Sequence[str], goal: float) -> SpeedComparison:
    """Scores and decisions from images in memory, against the texts encoded again for each image."""
    params, size = bench.params, len(bench.texts)
    clip, template = params.clip.discriminator.load(bench.device), params.clip.prompt_template
    space = LabelSpace.model_validate({"name": "bench", "labels": [{"name": n, "seen": False} for n in labels]})
    rule = params.filter_images.build(space)
    requested = [prompt.labels for prompt in bench_prompts(space, size)]
    images = torch.rand(size, 3, bench.config.image_px, bench.config.image_px, device=bench.device)
    texts = clip.encode_texts(labels, template)

    @torch.no_grad()
    def decide(part: slice, texts: Tensor) -> None:
        rule.decide(clip.logits(images[part], texts).float().cpu(), requested[part])

    def one_by_one() -> None:
        for i in range(PLAIN_TURN):
            decide(slice(i, i + 1), clip.encode_texts(labels, template))

    name = f"filtering by {len(labels)} labels, against texts encoded for each image"
    ours, plain = Side(lambda: decide(slice(size), texts), size), Side(one_by_one, PLAIN_TURN)
    return bench.compare(name, ours, plain, f"batch {size} against 1", goal)


def encode_alone(tower: TextTower, contexts: Tensor, token_ids: Tensor) -> Tensor:
    """As `TextTower.encode_behind`, each label's text encoded separately and with its padding, as published."""
    size, start = contexts.shape[1], tower.num_start
    texts = torch.cat([token_ids[:, :start], token_ids[:, :1].expand(-1, size), token_ids[:, start:]], 1)

    def read(context: Tensor) -> Tensor:
        def splice(_: Any, __: Any, embedded: Tensor) -> Tensor:
            behind = embedded[:, start + size :]
            return torch.cat([embedded[:, :start], context.expand(len(texts), -1, -1), behind], 1)

        handle = tower.part.token_embedding.register_forward_hook(splice)
        try:
            return tower.encode(texts[:, : tower.context_length])
        finally:
            handle.remove()

    return torch.stack([read(context) for context in contexts])


def classifier(bench: PipelineBenchmark, space: LabelSpace, labels_per_step: int) -> SpeedComparison:
    """A training step on some labels, against one on all, encoded one by one, in the memory order of a plain tensor."""
    config: Any = bench.params.train_classifier.config
    size = config.batch_size
    images = torch.randint(0, 256, (size, 3, bench.config.image_px, bench.config.image_px), dtype=torch.uint8)
    targets = torch.randint(0, 2, (size, len(space.names)), dtype=torch.int8)
    data = ImageSet(tuple(map(str, range(size))), images, targets)

    def step(labels: int | None) -> tuple[DualPrompt, Side]:
        settings = config.model_copy(update={"labels_per_step": labels, "num_context_tokens": CONTEXT_TOKENS})
        model = on_clip(settings, space, config.backbone.load(bench.device))
        optimizers = model.optimizers()
        return model, Side(lambda: next(train_epochs(model, data, optimizers, settings, 0)), size)

    _, ours = step(labels_per_step)
    model, plain = step(None)
    model.visual.to(memory_format=torch.contiguous_format)
    assert model.prompts is not None
    model.prompts.tower.encode_behind = partial(encode_alone, model.prompts.tower)  # type: ignore[method-assign]
    note = f"{labels_per_step} of {len(space.names)} labels per step against all, encoded one by one, batch {size}"
    return bench.compare("training on many labels, against all in every step", ours, plain, note, goal=5)


def prompts(bench: PipelineBenchmark) -> SpeedComparison:
    """Replies of the LLM in batches, against one by one."""
    block = bench.params.write_prompts
    config: Any = block.llm.config
    llm = block.llm.build(bench.device)
    pairs = bench.label_space.pairs()
    dialogues = [dialogue(pairs[i % len(pairs)], block.min_words) for i in range(llm.batch_size)]
    seeds = [sample_seed(bench.params.seed, "bench", i) for i in range(len(dialogues))]

    def one_by_one() -> None:
        for i in range(PLAIN_TURN):
            llm.reply(dialogues[i : i + 1], seeds[i : i + 1])

    ours = Side(lambda: llm.reply(dialogues, seeds), len(dialogues))
    plain, note = Side(one_by_one, PLAIN_TURN), f"batch {len(dialogues)} against 1, {config.quantization}"
    return bench.compare("writing prompts in batches, against one by one", ours, plain, note, bench.goals["prompts"])


def metrics(bench: PipelineBenchmark) -> SpeedComparison:
    """Average precision of every label, against scikit-learn."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(SCORES, generator=generator)
    targets = (torch.rand(SCORES, generator=generator) < 0.05).to(torch.int8)

    def by_scikit_learn() -> np.ndarray:
        columns = zip(targets.T.numpy(), scores.T.numpy(), strict=True)
        return np.array([average_precision_score(target, of_label) for target, of_label in columns])

    difference = float(np.abs(average_precisions(scores, targets).numpy() - by_scikit_learn()).max())
    note = f"{SCORES[0]:,} images, {SCORES[1]} labels; largest difference {difference:.0e}"
    ours, plain = Side(lambda: average_precisions(scores, targets)), Side(by_scikit_learn)
    name = "average precision, against scikit-learn"
    return bench.compare(name, ours, plain, note, goal=10, equal=difference <= SAME_PRECISION)


def _judged(generator: StableDiffusion, judge: LabelScorer, bench: PipelineBenchmark, num_steps: int) -> float:
    """Share of images in which the judge recognises all requested labels."""
    asked: list[Prompt] = bench_prompts(bench.label_space, bench.num_judged)
    batches = ShrinkingBatches(len(bench.texts), "drawing", TUNING_MEMORY_REMEDY)
    images = torch.cat(list(draw_images(generator, asked, bench.params.seed, num_steps, batches, "bench")))
    return acceptance(judge, images, asked)
