"""Folder of a saved classifier, and the architecture of the visual tower from which it is built again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from operator import not_
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from tailorset.classifiers import CONFIG_FILE, WEIGHTS_FILE, check_file
from tailorset.clip.model import Clip, Interpolation
from tailorset.records import LabelSpace
from tailorset.storage import checksums
from tailorset.training.contract import TrainingConfig


class Vision(BaseModel):
    """Architecture of the visual tower and its preprocessing: what a saved classifier needs of its backbone.

    tuned_from: `weights_digest` of the backbone's tower if the classifier changes it; None = it is frozen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embed_dim: int
    quick_gelu: bool = False
    vision_cfg: dict[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_px: int
    interpolation: Interpolation = Field("bicubic", exclude_if=lambda mode: mode == "bicubic")
    tuned_from: str | None = Field(None, exclude_if=not_)

    @classmethod
    def of(cls, clip: Clip, is_tuned: bool = False) -> Vision:
        """Return the description of a loaded CLIP's visual tower, with its digest if it is to be tuned."""
        visual: Any = clip.model.visual
        return cls(
            embed_dim=clip.architecture["embed_dim"],
            quick_gelu=clip.architecture.get("quick_gelu", False),
            vision_cfg=clip.architecture["vision_cfg"],
            mean=visual.preprocess_cfg["mean"],
            std=visual.preprocess_cfg["std"],
            image_px=clip.image_px,
            interpolation=clip.interpolation,
            tuned_from=weights_digest(visual) if is_tuned else None,
        )

    def build(self) -> nn.Module:
        """Return the visual tower with random weights; the text tower of its CLIP is tiny and thrown away."""
        import open_clip

        text_cfg = {"context_length": 2, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}
        model = open_clip.CLIP(self.embed_dim, self.vision_cfg, text_cfg, quick_gelu=self.quick_gelu)  # type: ignore[arg-type]
        return model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def weights_digest(module: nn.Module) -> str:
    """Return the sha256 of a module's tensors and their names."""
    return hashlib.sha256(save({name: one.cpu().contiguous() for name, one in module.state_dict().items()})).hexdigest()


class Saved(NamedTuple):
    """Content of a classifier's folder; the visual tower has random weights until `tensors` are loaded."""

    description: dict[str, Any]
    label_space: LabelSpace
    vision: Vision
    visual: nn.Module
    tensors: dict[str, Tensor]


def write_saved(
    folder: Path,
    name: str,
    classifier: nn.Module,
    config: TrainingConfig,
    label_space: LabelSpace,
    vision: Vision,
    **others: float | list[int],
) -> None:
    """Write config.json, with `name` and `others`, and all tensors of the classifier, then seal the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    confusable = sorted(map(sorted, label_space.confusable))  # a set's order differs between processes
    description = {
        "name": name,
        "config": config.model_dump(),
        "label_space": label_space.model_dump(mode="json") | {"confusable": confusable},
        "vision": vision.model_dump(),
    }
    text = json.dumps(description | others, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    tensors = {key: value.detach().cpu().contiguous() for key, value in classifier.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE)
    checksums.seal(folder)


@contextmanager
def reading_saved(folder: Path) -> Iterator[Saved]:
    """Yield what `write_saved` wrote; errors while the classifier is built from it become a ValueError.

    Raises:
        ValueError: config and weights are missing, damaged or of different models, or do not fit the classifier.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        check_file(folder / name)
    try:
        checksums.check(folder)
        description = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS_FILE)
        vision = Vision.model_validate(description["vision"])
        yield Saved(description, LabelSpace.model_validate(description["label_space"]), vision, vision.build(), tensors)
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{folder} does not hold a usable classifier ({error}): run `dvc repro train_classifier`"
        ) from error
