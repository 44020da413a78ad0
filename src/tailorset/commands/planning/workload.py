"""Amounts of work of each stage, counted from params.yaml before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tailorset.clip.dense_features import CROPS_PER_SIDE
from tailorset.generation.quota import QuotaPlanner
from tailorset.project.assembly import steps_drawn
from tailorset.project.params import Params
from tailorset.prompts.writer import write_prompts
from tailorset.records import LabelSpace, Prompt, Split
from tailorset.seeding import numpy_rng
from tailorset.thresholds.sources import NUM_FAMILIAR
from tailorset.tuning.held_out import IMAGES_PER_PROMPT
from tailorset.tuning.settings import TuneTextEncoder
from tailorset.tuning.unet_report import SHEET_PROMPTS

BACKWARD = 2.0  # a step with gradient takes its forward pass and about two more
WITH_CROPS = 1 + CROPS_PER_SIDE**2  # passes over an image and its crops


class Work(NamedTuple):
    """A number of units of work of a stage; planning.device_rates measures the cost of one."""

    stage: str
    unit: str
    amount: float


class Cost(NamedTuple):
    """Cost of a unit of work, a stage or a run. flops: as torch counts them, 0 if it cannot; bytes: left on disk."""

    seconds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0

    def times(self, count: float) -> Cost:
        return Cost(*(count * value for value in self))


def total(costs: Iterable[Cost]) -> Cost:
    return Cost(*map(sum, zip(Cost(), *costs, strict=True)))


class Drawing(NamedTuple):
    """Images drawn and kept until every label has its quota or the budget is spent."""

    drawn: int
    kept: int
    short: int  # labels that stay under their quota


def expected_replies(accepted: float, max_attempts: int) -> float:
    """Replies a prompt takes when each is accepted with that probability, at most `max_attempts`."""
    rejected = 1 - accepted
    return sum(rejected**attempt for attempt in range(max_attempts))


def template_prompts(params: Params, label_space: LabelSpace) -> tuple[Prompt, ...]:
    """Return template prompts, as many as the LLM will write: drawing from them takes as long."""
    config = params.write_prompts.model_copy(update={"max_attempts": 0})
    return next(write_prompts(lambda dialogues, seeds: [], label_space, config, params.seed, batch_size=1)).prompts


def expected_drawing(params: Params, label_space: LabelSpace, prompts: Sequence[Prompt], pass_rate: float) -> Drawing:
    """Run the real planner on random outcomes, so that every allocation is estimated as it works."""
    planner = QuotaPlanner.of(params.generate_images, label_space.unseen, prompts, params.seed)
    chance, drawn, kept = numpy_rng(params.seed, "plan"), 0, 0
    while draws := planner.plan_round():
        passed = chance.random(len(draws)) < pass_rate
        planner.record(draws, passed)
        drawn, kept = drawn + len(draws), kept + int(passed.sum())
    return Drawing(drawn, kept, len(planner.under_quota))


def workload(
    params: Params,
    label_space: LabelSpace,
    photos: Mapping[Split, int],
    replies_per_prompt: float,
    drawing: Drawing,
) -> list[Work]:
    """Return all work of a run, in the order of the stages, as if no stage stopped early."""
    return [
        Work("prepare_dataset", "photo", sum(photos.values())),
        *_prompts(params, label_space, photos, replies_per_prompt),
        *_unet(params, photos),
        *_tuning(params, label_space),
        *_drawing(params, photos, drawing),
        *_training(params, photos, drawing.kept),
        *_thresholds(params, label_space, photos, drawing.kept),
        *_evaluation(params, photos),
        Work("data_card", "image read", drawing.drawn),
        Work("data_card", "image judged", drawing.drawn),
    ]


def passes_of_saved(params: Params) -> int:
    """Return the passes in which a saved classifier scores an image; it describes one in a single pass."""
    return WITH_CROPS if getattr(params.train_classifier.config, "crop_weight", 0) else 1


def steps_taken(block: TuneTextEncoder) -> int:
    """Return the mean number of sampling steps of an update."""
    return round(sum(block.stop_after) / 2) if block.stop_after else block.num_inference_steps


def tuning_passes(block: TuneTextEncoder) -> float:
    """Return the mean cost of an image in an update, in forward passes."""
    return steps_taken(block) + BACKWARD * min(block.backprop_steps, steps_taken(block))


def _prompts(
    params: Params, label_space: LabelSpace, photos: Mapping[Split, int], replies_per_prompt: float
) -> Iterator[Work]:
    block = params.write_prompts
    if block.captions:
        yield Work("write_prompts", "photo captioned", _lent(params, photos, block.captions.num_photos))
    yield Work("write_prompts", "reply", block.num_prompts(label_space) * replies_per_prompt)


def _drawing(params: Params, photos: Mapping[Split, int], drawing: Drawing) -> Iterator[Work]:
    block = params.generate_images
    if block.from_photos:
        yield Work("generate_images", "photo encoded", _lent(params, photos, block.from_photos.num_photos))
    yield Work("generate_images", "sampling step", (drawing.drawn + block.negative_images) * steps_drawn(block))


def _lent(params: Params, photos: Mapping[Split, int], num_photos: int) -> int:
    """Return how many of the requested photos there are; a folder of other photos is not counted."""
    return min(num_photos, photos["train"]) if params.prepare_dataset.lend_photos == "train" else num_photos


def _unet(params: Params, photos: Mapping[Split, int]) -> Iterator[Work]:
    block = params.tune_unet
    if not block.num_updates:
        return
    for unit in ("image read", "photo encoded"):
        yield Work("tune_unet", unit, min(block.num_photos, photos["train"]))
    yield Work("tune_unet", "photo learned", block.num_updates * block.batch_size)
    yield Work("tune_unet", "sampling step", 2 * SHEET_PROMPTS * params.generate_images.num_inference_steps)


def _tuning(params: Params, label_space: LabelSpace) -> Iterator[Work]:
    block = params.tune_text_encoder
    if not block.num_updates:
        return
    looks = 3 + math.ceil(block.num_updates / block.evaluate_every)  # before and after, and at each evaluation
    held_out = min(block.held_out_prompts, params.write_prompts.num_prompts(label_space))
    images = looks * IMAGES_PER_PROMPT * held_out
    yield Work("tune_text_encoder", "tuning step", block.num_updates * block.batch_size * tuning_passes(block))
    yield Work("tune_text_encoder", "sampling step", images * params.generate_images.num_inference_steps)


def _training(params: Params, photos: Mapping[Split, int], kept: int) -> Iterator[Work]:
    block, config = params.train_classifier, params.train_classifier.config
    sources, epochs = config.train_on, config.num_epochs
    share = 1 - block.held_out_share
    real = photos["train"] * share if "real" in sources else 0
    synthetic = kept * share + params.generate_images.negative_images if "synthetic" in sources else 0
    yield Work("train_classifier", "image read", real + synthetic + photos["val"])
    yield Work(
        "train_classifier", "training image", epochs * (real + (block.synthetic_repeats + block.mosaics) * synthetic)
    )
    with_crops = passes_of_saved(params) if passes_of_saved(params) > 1 else 0  # when saved; training uses no crops
    yield Work(
        "train_classifier", "image scored", (epochs + 2 + len(config.interpolation) + with_crops) * photos["val"]
    )


def _thresholds(params: Params, label_space: LabelSpace, photos: Mapping[Split, int], kept: int) -> Iterator[Work]:
    """Count scoring val and the images that calibrate labels, then the features that set the limit of novelty."""
    share, seen = params.train_classifier.held_out_share, bool(label_space.seen)
    generated = share * kept if params.fit_thresholds.source == "synthetic" else 0
    scored = photos["val"] + (share * photos["train"] if seen else 0) + generated
    described = min(photos["val"], NUM_FAMILIAR) + (min(photos["train"], NUM_FAMILIAR) if seen else 0)
    yield Work("fit_thresholds", "image read", scored + described)
    yield Work("fit_thresholds", "image scored", passes_of_saved(params) * scored + described)


def _evaluation(params: Params, photos: Mapping[Split, int]) -> Iterator[Work]:
    """Count scoring by raw CLIP on test, as it is and with patches and crops, then by the saved classifier."""
    yield Work("score_baselines", "image read", photos["test"])
    yield Work("score_baselines", "image scored", (1 + WITH_CROPS) * photos["test"])
    yield Work("evaluate", "image read", photos["val"] + photos["test"])
    yield Work("evaluate", "image scored", passes_of_saved(params) * (photos["val"] + photos["test"]))
