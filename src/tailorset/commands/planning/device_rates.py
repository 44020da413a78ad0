"""Cost of a unit of each kind of work on this device: the stages' own inner loops, run for a moment."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from tailorset.clip.scorer import LabelScorer
from tailorset.commands.planning.workload import Cost, steps_taken, tuning_passes
from tailorset.compute.flops import flop_counter
from tailorset.datasets import Dataset
from tailorset.generation.engine import Shelf
from tailorset.generation.quota import Draw
from tailorset.generation.settings import FromPhotos
from tailorset.generation.source_photos import SourcePhotos
from tailorset.generation.studio import PlannedShard
from tailorset.project.assembly import open_studio, steps_drawn
from tailorset.project.params import Params
from tailorset.prompts.captions import write_captions
from tailorset.prompts.settings import CaptionerSettings
from tailorset.prompts.writer import write_prompts
from tailorset.records import LabelSpace, Prompt, RealSample
from tailorset.seeding import occurrence_numbers, sample_seed
from tailorset.storage.image_set import ImageSet, load_image_set
from tailorset.storage.shards import sha256, write_shard
from tailorset.training.loop import predict, train_epochs
from tailorset.tuning.photo_captions import PhotoCaptions, captioned
from tailorset.tuning.tuner import new_tuner
from tailorset.tuning.unet_tuner import UnetTuner

NUM_PHOTOS = 64
NUM_ENCODED = 8  # by the generator's VAE, one by one
NUM_SCORED = 128
T = TypeVar("T")
IMPORTS = "import mlflow, open_clip, diffusers, tailorset.project.stage"  # what a stage waits for before it begins


class DeviceRates:
    """Loads each model of params.yaml for its own measurement only.

    accepted_replies, pass_rate: what the sample showed of the LLM and of the untuned generator, in [0, 1].
    """

    def __init__(
        self, params: Params, label_space: LabelSpace, dataset: Dataset, prompts: Sequence[Prompt], device: torch.device
    ) -> None:
        self.params, self.label_space, self.dataset = params, label_space, dataset
        self.prompts, self.device = prompts, device
        self.accepted_replies = self.pass_rate = 0.0

    def unit_costs(self) -> Iterator[tuple[str, Cost]]:
        """Yield (unit, cost of one) as they are measured; the slowest machine takes minutes for it."""
        seconds, _ = _timed(lambda: subprocess.run([sys.executable, "-c", IMPORTS], check=True))
        yield "start", Cost(seconds)
        yield from self._photos()
        if captions := self.params.write_prompts.captions:
            yield "photo captioned", self._caption(captions.captioner)
        yield "reply", self._reply()
        yield from self._drawing()
        yield from self._classifier()

    def _photos(self) -> Iterator[tuple[str, Cost]]:
        """Measure reading or drawing photos."""
        split = max(self.dataset.sizes, key=lambda name: self.dataset.sizes[name])
        seconds, samples = _timed(lambda: list(islice(self.dataset.samples(split), NUM_PHOTOS)))
        self.photos = [sample for sample in samples if isinstance(sample, RealSample)]
        if not self.photos:
            raise ValueError(f"none of the first {len(samples)} {split} photos can be read: `tailorset doctor`")
        size = sum(len(photo.png) for photo in self.photos) / len(self.photos)
        yield "photo", Cost(seconds / len(samples), bytes=size)

    def _caption(self, settings: CaptionerSettings) -> Cost:
        """Measure one batch of captions."""
        captioner = settings.build(self.device)
        with self._stored() as (rows, folder):
            seconds, captions = _timed(lambda: next(write_captions(captioner, rows, folder)))
        return Cost(seconds / len(captions))

    def _reply(self) -> Cost:
        """Measure one batch of the LLM's replies, and the share of them that meet the contract."""
        block = self.params.write_prompts
        llm = block.llm.build(self.device)
        config, size = block.model_copy(update={"max_attempts": 1}), llm.batch_size
        seed = sample_seed("plan", time.time_ns())  # the reply to a request that was sent before may be stored
        seconds, ledger = _timed(lambda: next(write_prompts(llm.reply, self.label_space, config, seed, size)))
        self.accepted_replies = len(ledger.prompts) / ledger.asked
        return Cost(seconds / ledger.asked)

    def _drawing(self) -> Iterator[tuple[str, Cost]]:
        """Measure a batch of images drawn, scored and encoded, then tuning updates with the same generator."""
        params, block = self.params, self.params.generate_images
        unseen, template = self.label_space.unseen, params.clip.prompt_template
        steps, size = steps_drawn(block), block.batch_size
        from_noise = params.model_copy(update={"generate_images": block.model_copy(update={"from_photos": None})})
        studio: Any = open_studio(from_noise, self.label_space, self.device, adapters={})
        if block.from_photos:
            studio.photos, cost = self._encoded(block.from_photos, studio.generator)
            yield "photo encoded", cost
        plan = PlannedShard("plan", _draws(self.prompts, size))
        draw = partial(studio.draw_shard, plan)
        draw()  # compiles if `compile` is set, and finds the batch size that fits
        flops = _counted(draw)
        seconds, (rows, pngs) = _timed(draw)
        passed = Shelf(unseen, block.quota_threshold).add(plan.name, rows, pngs).passed
        self.pass_rate = sum(passed) / size
        num_bytes = sum(len(png) for _, png in pngs)
        yield "sampling step", Cost(*(value / size / steps for value in (seconds, flops, num_bytes)))
        images = torch.rand(NUM_SCORED, 3, studio.generator.image_px, studio.generator.image_px)
        texts = studio.judge.encode_texts(self.label_space.names, template)
        seconds, _ = _timed(lambda: studio.judge.logits(images, texts))
        yield "image judged", Cost(2 * seconds / NUM_SCORED)  # by both CLIPs
        if params.tune_text_encoder.num_updates:
            yield "tuning step", self._tuning(studio.generator, LabelScorer(studio.discriminator, unseen, template))
        if params.tune_unet.num_updates:
            yield from self._unet()

    def _encoded(self, config: FromPhotos, generator: Any) -> tuple[SourcePhotos, Cost]:
        """Return photos to start from, and the cost of encoding one of them."""
        with self._stored() as (rows, folder):
            some = rows.head(NUM_ENCODED)
            encode = partial(SourcePhotos.encode, config, generator, some, folder)
            flops = _counted(encode)
            seconds, photos = _timed(encode)
        return photos, Cost(seconds / len(some), flops / len(some))

    def _unet(self) -> Iterator[tuple[str, Cost]]:
        """Measure encoding photos, and one update of the UNet on them, with a new generator without an adapter."""
        generator, seed = self.params.generator.build(self.device), self.params.seed
        block = self.params.tune_unet.model_copy(update={"num_updates": 2})
        captions = PhotoCaptions(self.prompts, self.label_space, seed)
        with self._stored() as (rows, folder):
            some = rows.head(NUM_ENCODED)
            encode = partial(captioned, (some, self._targets()[: len(some)]), folder, captions, generator)
            flops = _counted(encode)
            seconds, examples = _timed(encode)
        yield "photo encoded", Cost(seconds / len(some), flops / len(some))
        updates = UnetTuner(generator, examples, block, seed).updates()
        flops = _counted(lambda: next(updates))
        seconds, _ = _timed(lambda: next(updates))
        yield "photo learned", Cost(seconds / block.batch_size, flops / block.batch_size)

    def _tuning(self, generator: Any, discriminator: LabelScorer) -> Cost:
        block = self.params.tune_text_encoder
        config = block.model_copy(update={"num_updates": 4, "stop_after": (steps_taken(block),) * 2})
        tuner = new_tuner(generator, discriminator, self.prompts, config, self.label_space, self.params.seed)
        updates = tuner.updates()
        next(updates)
        flops = _counted(lambda: next(updates))
        seconds, _ = _timed(lambda: (next(updates), next(updates)))
        steps = block.batch_size * tuning_passes(block)
        return Cost(seconds / 2 / steps, flops / steps)

    def _classifier(self) -> Iterator[tuple[str, Cost]]:
        """Measure two batches of training, scoring without a gradient, and decoding to the classifier's size."""
        block = self.params.train_classifier
        config = block.config
        classifier: Any = block.build(self.label_space, self.device)
        seconds, photos = _timed(lambda: self._decoded(classifier.image_px))
        yield "image read", Cost(seconds / len(photos))
        count = 2 * config.batch_size
        data = _tiled(photos, max(count, NUM_SCORED))
        batch = ImageSet(data.ids[:count], data.images[:count], data.targets[:count])
        epochs = train_epochs(classifier, batch, classifier.optimizers(), config, self.params.seed)
        flops = _counted(lambda: next(epochs))
        seconds, _ = _timed(lambda: next(epochs))
        yield "training image", Cost(seconds / count, flops / count)
        flops = _counted(lambda: predict(classifier, data.images))
        seconds, _ = _timed(lambda: predict(classifier, data.images))
        yield "image scored", Cost(seconds / len(data), flops / len(data))

    def _decoded(self, image_px: int) -> ImageSet:
        """Return the sampled photos as stages read them."""
        with self._stored() as (rows, folder):
            return load_image_set(rows, self._targets(), folder, image_px)

    def _targets(self) -> torch.Tensor:
        """Return the targets (N, L) of the sampled photos."""
        labels = self.label_space.names
        return torch.tensor([[photo.targets.get(name, -1) for name in labels] for photo in self.photos])

    @contextmanager
    def _stored(self) -> Iterator[tuple[pd.DataFrame, Path]]:
        """Yield manifest rows of the sampled photos, and the folder of the shard that holds them."""
        photos = self.photos
        with tempfile.TemporaryDirectory() as folder:
            write_shard(Path(folder, "shards", "plan.tar"), ((photo.image_id, photo.png) for photo in photos))
            rows = [{"image_id": photo.image_id, "shard": "plan.tar", "sha256": sha256(photo.png)} for photo in photos]
            yield pd.DataFrame(rows), Path(folder)


def _draws(prompts: Sequence[Prompt], count: int) -> list[Draw]:
    """Return `count` draws, spread evenly over the prompts."""
    order = [prompts[i * len(prompts) // count % len(prompts)] for i in range(count)]
    numbers = occurrence_numbers(prompt.prompt_id for prompt in order)
    return [Draw(prompt, number, prompt.labels[0]) for prompt, number in zip(order, numbers, strict=True)]


def _tiled(images: ImageSet, count: int) -> ImageSet:
    """Return `count` images with new ids, repeating those given."""
    order = list(islice(cycle(range(len(images))), count))
    return ImageSet(tuple(map(str, range(count))), images.images[order], images.targets[order])


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return (seconds, result); waits for a GPU to finish."""
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def _counted(work: Callable[[], object]) -> float:
    """Return the FLOPs of a call by torch's own count; it also warms up."""
    with flop_counter() as counter:
        work()
    return float(counter.get_total_flops())
