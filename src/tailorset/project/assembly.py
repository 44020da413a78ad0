"""Generator and CLIPs, as params.yaml names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from tailorset.clip.scorer import LabelScorer
from tailorset.clip.settings import Role
from tailorset.generation.settings import GenerateImages
from tailorset.generation.source_photos import SourcePhotos
from tailorset.generation.studio import Studio
from tailorset.generators import Part
from tailorset.generators.parts.schedulers import steps_skipped
from tailorset.project.layout import LORA, REAL, UNET_LORA
from tailorset.project.params import Params
from tailorset.records import LabelSpace
from tailorset.storage.held_out import held_out_signatures
from tailorset.storage.lent import lent_photos

ADAPTERS: Mapping[Part, Path] = {"denoisers": UNET_LORA, "text_encoders": LORA}


def open_studio(
    params: Params, label_space: LabelSpace, device: torch.device, adapters: Mapping[Part, Path] = ADAPTERS
) -> Studio:
    """Load the generator, both CLIPs, and the photos to start from.

    adapters: folders by the part they are for; without any the images are only timed, and may be like a photo of val
    or test.

    Raises:
        ValueError: a model is missing or damaged, an adapter is none or another model's, or photos are missing.
    """
    generator, from_photos = params.generator.build(device), params.generate_images.from_photos
    for part, folder in adapters.items():
        generator.load_adapter(folder, part)
    if adapters and params.generator.config.retrieves_photos:
        generator = generator.without_copies(held_out_signatures(REAL))
    photos = None
    if from_photos:
        lent = lent_photos(REAL).some(from_photos.num_photos, params.seed)
        photos = SourcePhotos.encode(from_photos, generator, *lent)
    return Studio(
        generator=generator,
        **params.clip.load(device),
        unseen=label_space.unseen,
        prompt_template=params.clip.prompt_template,
        base_seed=params.seed,
        num_inference_steps=params.generate_images.num_inference_steps,
        batch_size=params.generate_images.batch_size,
        photos=photos,
    )


def steps_drawn(block: GenerateImages) -> int:
    """Return the sampling steps that an image takes: a start from a photo leaves the first ones out.

    Raises:
        ValueError: no step would be left.
    """
    steps, start = block.num_inference_steps, block.from_photos
    return steps - steps_skipped(steps, start.strength) if start else steps


def open_scorers(params: Params, label_space: LabelSpace, device: torch.device) -> dict[Role, LabelScorer]:
    """Load both CLIPs as scorers of the unseen labels.

    Raises:
        ValueError: a model is missing or damaged.
    """
    template = params.clip.prompt_template
    return {role: LabelScorer(clip, label_space.unseen, template) for role, clip in params.clip.load(device).items()}
