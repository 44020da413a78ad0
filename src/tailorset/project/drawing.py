"""Labelled images from a Python program: prompts by a language model, images by a diffusion model, checked by CLIP.

The steps and plug-ins are those of the pipeline, without its caches, tuning and quotas.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice, zip_longest
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from pydantic import ValidationError

if TYPE_CHECKING:  # drawing needs more libraries than predicting, and they are slow to import
    from tailorset.clip.settings import ClipModel
    from tailorset.generation.studio import Studio
    from tailorset.project.params import GeneratorSettings
    from tailorset.prompts.settings import WritePrompts
    from tailorset.records import LabelSpace, Prompt

TEMPLATE = "a photo of a {}"  # in which CLIP sees a label
MAX_ATTEMPTS = 4  # rounds of asking for prompts, as in params.yaml


@dataclass(frozen=True)
class GeneratedImage:
    """A generated image with its origin.

    image: RGB. labels: what it was asked to show, and shows as far as CLIP tells. confidence: the lowest probability of
    one of them, in [0, 1]. lineage: all that is needed to draw it again, ready for JSON: prompt, its author, seed,
    settings of the models.
    """

    image: Image.Image
    labels: tuple[str, ...]
    prompt: str
    confidence: float
    accepted: bool
    lineage: Mapping[str, Any]


def generate(
    labels: Sequence[str],
    generator: Mapping[str, Any],
    llm: Mapping[str, Any],
    clip: Mapping[str, Any],
    num_images: int = 100,
    num_inference_steps: int = 20,
    threshold: float = 0.5,
    prompts_per_pair: int = 10,
    min_words: int = 10,
    kinds: Sequence[str] = ("a photo of",),
    keep_rejected: bool = False,
    batch_size: int = 16,
    seed: int = 0,
    device: str = "auto",
) -> Iterator[GeneratedImage]:
    """Draw images of the labels, alone and in pairs, one after the other; the models are loaded before it returns.

    labels: at least three, since CLIP compares each with the rest. generator, llm, clip: as the blocks `generator`,
    `write_prompts.llm` and `clip.discriminator` of params.yaml. num_images: images to draw, `batch_size` at once, in
    `num_inference_steps` sampling steps. Those in which CLIP does not find every label with a probability above
    `threshold` are left out, or come with `accepted` false by `keep_rejected`. prompts_per_pair: prompts that are
    written for each label and each pair, of at least `min_words`, beginning with one of `kinds` in turn. seed: the
    same seed gives the same images, but for rounding in batches of another size. device: auto, cpu or cuda.

    Raises:
        ValueError: too few or unusable labels, settings that are not valid, or a model that cannot be loaded.
    """
    from tailorset.compute.device import resolve_device
    from tailorset.generation.studio import Studio
    from tailorset.project.params import FilterImages

    generator, llm, clip = map(_plain, (generator, llm, clip))
    writing = {"prompts_per_pair": prompts_per_pair, "min_words": min_words, "kinds": list(kinds), "llm": llm}
    space, draws_by, writes_by, discriminator = _settings(labels, generator, clip, writing)
    for name, number in {"num_images": num_images, "batch_size": batch_size}.items():
        if number < 1:
            raise ValueError(f"{name} is {number}: choose 1 or more")
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}: choose a probability from 0 to below 1")
    rule = FilterImages.model_validate({"name": "grouped_softmax", "threshold": threshold}).build(space)
    chosen = resolve_device(device)
    scored_by = discriminator.load(chosen)
    studio = Studio(
        generator=draws_by.build(chosen),
        discriminator=scored_by,
        judge=scored_by,
        unseen=space.unseen,
        prompt_template=TEMPLATE,
        base_seed=seed,
        num_inference_steps=num_inference_steps,
        batch_size=batch_size,
    )
    prompts = _write(writes_by, draws_by, space, seed, chosen)
    settings = {"generator": generator, "llm": llm, "clip": clip, "steps": num_inference_steps}
    return _drawn(studio, rule, prompts, num_images, settings, keep_rejected)


def _plain(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as YAML has them, with paths as text."""
    return {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in block.items()}


def _settings(
    labels: Sequence[str],
    generator: Mapping[str, Any],
    clip: Mapping[str, Any],
    writing: Mapping[str, Any],
) -> tuple[LabelSpace, GeneratorSettings, WritePrompts, ClipModel]:
    from tailorset.clip.settings import ClipModel
    from tailorset.messages import invalid
    from tailorset.project.params import GeneratorSettings
    from tailorset.prompts.settings import WritePrompts
    from tailorset.records import MIN_UNSEEN, LabelSpace

    if isinstance(labels, str):
        raise ValueError(f"labels must be a list, not one str: write [{labels!r}, ...]")
    if len(labels) < MIN_UNSEEN:
        raise ValueError(f"labels are {list(labels)}: give at least {MIN_UNSEEN}, as CLIP compares each with the rest")
    try:
        return (
            LabelSpace.model_validate({"name": "labels", "labels": [{"name": n, "seen": False} for n in labels]}),
            GeneratorSettings.model_validate(generator),
            WritePrompts.model_validate({**writing, "max_prompts": None, "max_attempts": MAX_ATTEMPTS}),
            ClipModel.model_validate(clip),
        )
    except ValidationError as error:
        raise ValueError(invalid("what `generate` was given", error)) from error


def _write(
    writing: WritePrompts, generator: GeneratorSettings, space: LabelSpace, seed: int, device: torch.device
) -> Sequence[Prompt]:
    from tailorset.prompts.token_limit import TokenLimit
    from tailorset.prompts.writer import write_prompts

    limit = TokenLimit(generator.plugin.build_tokenizers(generator.config))
    model = writing.llm.build(device)
    *_, ledger = write_prompts(model.reply, space, writing, seed, model.batch_size, limit=limit)
    return ledger.prompts


def _in_turn(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return the prompts so that each label and pair has its first before any has its second."""
    by_labels: dict[tuple[str, ...], list[Prompt]] = {}
    for prompt in prompts:
        by_labels.setdefault(prompt.labels, []).append(prompt)
    return [prompt for row in zip_longest(*by_labels.values()) for prompt in row if prompt is not None]


def _drawn(
    studio: Studio,
    rule: Any,
    prompts: Sequence[Prompt],
    num_images: int,
    settings: Mapping[str, Any],
    keep_rejected: bool,
) -> Iterator[GeneratedImage]:
    from tailorset.generation.quota import Draw
    from tailorset.generation.studio import PlannedShard

    in_turn = _in_turn(prompts)
    all_draws = (Draw(prompt, turn, prompt.labels[0]) for turn in count() for prompt in in_turn)
    draws = islice(all_draws, num_images)
    while batch := list(islice(draws, studio.batch_size)):
        rows, samples = studio.draw_shard(PlannedShard("", batch))
        logits = torch.tensor([row["discriminator_logits"] for row in rows])
        decisions = rule.decide(logits, [draw.prompt.labels for draw in batch])
        for draw, row, (_, png), decision in zip(batch, rows, samples, decisions, strict=True):
            if decision.kept or keep_rejected:
                lineage = {"image_id": draw.image_id, "seed": row["seed"], "sha256": row["sha256"], **settings}
                lineage |= {"prompt": draw.prompt.model_dump(mode="json"), "reason": decision.reason}
                image = Image.open(io.BytesIO(png)).convert("RGB")
                prompt = draw.prompt
                yield GeneratedImage(image, prompt.labels, prompt.text, decision.confidence, decision.kept, lineage)
