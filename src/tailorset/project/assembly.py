"""Generator and CLIPs, as params.yaml names them."""

from __future__ import annotations

from pathlib import Path

import torch

from tailorset.clip.scorer import LabelScorer
from tailorset.clip.settings import Role
from tailorset.generation.studio import Studio
from tailorset.project.params import Params
from tailorset.records import LabelSpace


def open_studio(params: Params, label_space: LabelSpace, device: torch.device, adapter: Path | None) -> Studio:
    """Load the generator, with its text encoder's adapter if there is one, and both CLIPs.

    Raises:
        ValueError: a model is missing or damaged, or the adapter is none or another model's.
    """
    generator = params.generator.build(device)
    if adapter is not None:
        generator.load_adapter(adapter)
    return Studio(
        generator=generator,
        **params.clip.load(device),
        unseen=label_space.unseen,
        prompt_template=params.clip.prompt_template,
        base_seed=params.seed,
        num_inference_steps=params.generate_images.num_inference_steps,
        batch_size=params.generate_images.batch_size,
    )


def open_scorers(params: Params, label_space: LabelSpace, device: torch.device) -> dict[Role, LabelScorer]:
    """Load both CLIPs as scorers of the unseen labels.

    Raises:
        ValueError: a model is missing or damaged.
    """
    template = params.clip.prompt_template
    return {role: LabelScorer(clip, label_space.unseen, template) for role, clip in params.clip.load(device).items()}
