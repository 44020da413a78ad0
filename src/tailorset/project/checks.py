"""Settings that are valid by themselves and do not go together, or not with the labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tailorset.generators.parts.schedulers import steps_skipped
from tailorset.messages import count, unknown
from tailorset.project.params import Params
from tailorset.prompts.contract import Contract
from tailorset.prompts.writer import unwritable
from tailorset.records import MIN_UNSEEN, LabelSpace


def contradictions(params: Params, label_space: LabelSpace) -> Iterator[str]:
    """Yield faults that would stop a stage later, each with its remedy."""
    where = f"label space {params.label_space}"
    if len(label_space.unseen) < MIN_UNSEEN:
        yield (
            f"{where} has {count(len(label_space.unseen), 'unseen label')} {list(label_space.unseen)}: an image of two"
            f" labels is accepted by comparing them with the other unseen ones, so name at least {MIN_UNSEEN}"
        )
    if not label_space.seen:
        yield from _without_seen_labels(params, f"{where} has no seen label")
    yield from params.train_classifier.config.problems(label_space)
    yield from _wordings(params)
    yield from _top_k(params, label_space)
    yield from _prompts(params, label_space, where)
    yield from _unet(params, label_space, where)
    yield from _tuning(params, label_space)
    yield from _lent_photos(params)
    yield from _generator(params)
    yield from _negatives(params, label_space)
    if (most := params.generate_images.max_images) < len(label_space.unseen):
        yield (
            f"generate_images.max_images is {most}, and {where} has {len(label_space.unseen)} unseen labels: raise it,"
            " as each label needs at least one image"
        )
    if params.prepare_dataset.config.annotates_unseen and not params.validate_data.annotated_unseen:
        yield (
            "prepare_dataset.annotate_unseen is true, which only measures full supervision: set"
            " validate_data.annotated_unseen to true as well, or annotate_unseen to false"
        )
    for label in params.generate_images.weakness:
        if label not in label_space.unseen:
            yield unknown("unseen label in generate_images.weakness", label, label_space.unseen)


def _without_seen_labels(params: Params, found: str) -> Iterator[str]:
    if "real" in params.train_classifier.config.train_on:
        yield f"{found}, but train_classifier.train_on asks for real images: set it to [synthetic]"
    if params.fit_thresholds.source != "synthetic":
        yield f"{found}, but fit_thresholds.source is seen_photos: set it to synthetic"
    if params.train_classifier.config.choose_on_seen:
        yield f"{found}, but train_classifier.choose_on_seen is true: set it to false"
    if params.prepare_dataset.lend_photos == "train":
        yield (
            f"{found}, so no photo is in train, but prepare_dataset.lend_photos is train: name a folder of photos, or"
            " set it to null"
        )


def _negatives(params: Params, label_space: LabelSpace) -> Iterator[str]:
    """Yield faults of negative images, which must not show an unseen label."""
    drawing = params.generate_images
    if not drawing.negative_images:
        return
    start = f"generate_images.negative_images is {drawing.negative_images}, and"
    if not label_space.seen:
        yield f"{start} these show seen labels, of which there are none: set it to 0"
    if drawing.from_photos:
        yield f"{start} generate_images.from_photos starts from photos that may show unseen labels: set it to 0"
    if params.generator.config.retrieves_photos:
        yield f"{start} generator {params.generator.name} finds photos that may show unseen labels: set it to 0"


def _prompts(params: Params, label_space: LabelSpace, where: str) -> Iterator[str]:
    writing, most = params.write_prompts, params.validate_data.max_template_share
    if writing.max_prompts is not None and writing.max_prompts < len(label_space.unseen):
        yield (
            f"write_prompts.max_prompts is {writing.max_prompts}, and {where} has {len(label_space.unseen)} unseen"
            " labels: raise it, as each label needs its own prompt"
        )
    if not writing.max_attempts and most < 1:
        yield (
            "write_prompts.max_attempts is 0, so every prompt comes from a template, and"
            f" validate_data.max_template_share is {most:g}: set it to 1, or max_attempts to 1 or more"
        )
    yield from unwritable(Contract(label_space, writing.min_words))


def _unet(params: Params, label_space: LabelSpace, where: str) -> Iterator[str]:
    if not (updates := params.tune_unet.num_updates):
        return
    config, start = params.generator.config, f"tune_unet.num_updates is {updates}, and"
    if not config.learns_photos:
        reason = config.untunable or f"generator {params.generator.name} cannot learn from photos"
        yield f"{start} {reason}: set it to 0"
    if not label_space.seen:
        yield f"{start} {where} has no seen label, so no photo is annotated: set it to 0"
    stored, drawn = (getattr(block, "image_px", 0) for block in (params.prepare_dataset.config, config))
    if 0 < stored < drawn:
        yield (
            f"{start} prepare_dataset.image_px is {stored}: the UNet would learn the blur of photos that are enlarged"
            f" to generator.image_px {drawn}; raise prepare_dataset.image_px to {drawn}, or set num_updates to 0"
        )
    if getattr(config, "dtype", "") == "float16":
        yield f"{start} generator.dtype is float16, in which small gradients vanish: set it to bfloat16 or float32"
    if getattr(config, "few_step", None):
        yield (
            f"{start} generator.few_step is set, which training on photos would undo: set num_updates to 0, or few_step"
            " to null"
        )


def _tuning(params: Params, label_space: LabelSpace) -> Iterator[str]:
    if not (updates := params.tune_text_encoder.num_updates):
        return
    if reason := params.generator.config.untunable:
        yield f"tune_text_encoder.num_updates is {updates}, and {reason}: set it to 0"
    total = params.write_prompts.num_prompts(label_space)
    if (held_out := params.tune_text_encoder.held_out_prompts) >= total:
        yield (
            f"tune_text_encoder.held_out_prompts is {held_out}, and {total} prompts will be written: choose 1 to"
            f" {total - 1}, or write more (write_prompts.prompts_per_pair)"
        )


def _lent_photos(params: Params) -> Iterator[str]:
    """Yield faults of settings that need lent photos."""
    drawing, config = params.generate_images, params.generator.config
    users = {
        "write_prompts.captions": params.write_prompts.captions,
        "generate_images.from_photos": drawing.from_photos,
    }
    for key, block in users.items():
        if block and not params.prepare_dataset.lend_photos:
            yield (
                f"{key} starts from photos, and prepare_dataset.lend_photos is null: set it to train or to a folder of"
                f" photos that may be used for that, or remove {key}"
            )
    if drawing.from_photos is None:
        return
    if not config.starts_from_photos:
        able = [name for name, plugin in params.generator.variants().items() if plugin.Config.starts_from_photos]
        yield (
            f"generate_images.from_photos is set, and generator {params.generator.name} cannot start from a photo:"
            f" choose {' or '.join(able)}, or remove from_photos"
        )
    try:
        steps_skipped(drawing.num_inference_steps, drawing.from_photos.strength)
    except ValueError as error:
        yield f"generate_images.from_photos: {error}"


def _generator(params: Params) -> Iterator[str]:
    """A negative prompt needs guidance, and images that are retrieved must not be photos of val and test."""
    negative, scale = (getattr(params.generator.config, key, None) for key in ("negative_prompt", "guidance_scale"))
    if negative and scale is not None and scale <= 1:
        yield (
            f"generator.negative_prompt is {negative!r}, which has no effect at guidance_scale {scale:g}: remove it, or"
            " raise guidance_scale above 1"
        )
    config = params.prepare_dataset.config
    pool = getattr(params.generator.config, "images", None)
    photos = getattr(config, "images", getattr(config, "root", None))
    if pool and photos and Path(photos).resolve().is_relative_to(pool.resolve()):
        yield (
            f"generator.images is {pool}, which holds the photos of prepare_dataset, those of val and test among them:"
            " name a folder of other images"
        )


def _top_k(params: Params, label_space: LabelSpace) -> Iterator[str]:
    num_labels = len(label_space.names)
    if (k := max(params.evaluate.top_k)) > num_labels:
        yield (
            f"evaluate.top_k has {k}, and label space {params.label_space} has {num_labels} labels: choose 1 to"
            f" {num_labels}, usually the number of labels per photo"
        )


def _wordings(params: Params) -> Iterator[str]:
    """Raw CLIP must be the same classifier where training has to beat it and where it is measured."""
    measured = params.clip.prompt_template
    template = params.train_classifier.config.raw_clip_template
    if template not in (None, measured):
        yield (
            f"train_classifier.template is {template!r}, and raw CLIP is measured with clip.prompt_template"
            f" {measured!r}: give both the same wording"
        )
