"""Architecture of the visual tower inside a classifier, from which a saved classifier is built again."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import nn

from tailorset.clip.model import Clip


class Vision(BaseModel):
    """Architecture of the visual tower and its preprocessing: what a saved classifier needs of its backbone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embed_dim: int
    quick_gelu: bool = False
    vision_cfg: dict[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_px: int

    @classmethod
    def of(cls, clip: Clip) -> Vision:
        """Return the description of a loaded CLIP's visual tower."""
        visual: Any = clip.model.visual
        return cls(
            embed_dim=clip.architecture["embed_dim"],
            quick_gelu=clip.architecture.get("quick_gelu", False),
            vision_cfg=clip.architecture["vision_cfg"],
            mean=visual.preprocess_cfg["mean"],
            std=visual.preprocess_cfg["std"],
            image_px=clip.image_px,
        )

    def build(self) -> nn.Module:
        """Return the visual tower with random weights; the text tower of its CLIP is tiny and thrown away."""
        import open_clip

        text_cfg = {"context_length": 2, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}
        model = open_clip.CLIP(self.embed_dim, self.vision_cfg, text_cfg, quick_gelu=self.quick_gelu)  # type: ignore[arg-type]
        return model.visual
