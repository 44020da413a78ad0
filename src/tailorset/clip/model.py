"""CLIP as a scorer of images: a frozen open_clip model with differentiable preprocessing.

Shapes: B images, L labels, D embedding width, N images of a whole set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import not_
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from tailorset.clip.weights import (
    CLIP_WEIGHTS_REMEDY,
    WEIGHTS,
    check_positions,
    check_sha256,
    check_tokenizer,
    hub_file,
    name_problem,
    source,
)
from tailorset.messages import first_line
from tailorset.storage import checksums
from tailorset.storage.hub import HUB, LOCAL, Name, NamedModel

TEXT_BATCH = 256
Interpolation = Literal["bicubic", "bilinear"]
CLIP_MEMORY_REMEDY = "name a smaller model under clip"


class Clip:
    """A frozen CLIP in evaluation mode; gradients flow to images, never to its weights.

    architecture: open_clip's description of the model, from which it can be built again.
    logit_bias: of a model that was trained with a sigmoid per pair of image and text (SigLIP), else 0.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[[list[str]], Tensor],
        architecture: dict[str, Any],
        device: torch.device | str,
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.tokenizer = tokenizer
        self.architecture = architecture
        self.device = torch.device(device)
        self.logit_scale = float(model.logit_scale.exp())
        self.logit_bias = 0.0 if model.logit_bias is None else float(model.logit_bias)
        size = model.visual.image_size
        self.image_px: int = size[0] if isinstance(size, Sequence) else size
        self.interpolation = interpolation_of(model.visual.preprocess_cfg)
        self._mean = torch.tensor(model.visual.image_mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(model.visual.image_std, device=device).view(3, 1, 1)

    @torch.no_grad()
    def encode_texts(self, names: Sequence[str], template: str) -> Tensor:
        """(L, D) unit vectors, one per name put into the template's `{}`."""
        if not names:
            raise ValueError("no names to encode: give at least one label")
        if "{}" not in template:
            raise ValueError(f"prompt template {template!r} has no place for the label: write it as {{}}")
        texts = [template.format(name) for name in names]
        parts = [self.tokenizer(texts[i : i + TEXT_BATCH]) for i in range(0, len(texts), TEXT_BATCH)]
        return torch.cat([self.model.encode_text(tokens.to(self.device), normalize=True) for tokens in parts])

    def encode_ensemble(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """(L, D) unit vectors: a name's mean over the templates. Source: Radford et al. 2021."""
        return F.normalize(torch.stack([self.encode_texts(names, template) for template in templates]).mean(0), dim=-1)

    def preprocess(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> normalised (B, 3, image_px, image_px), as open_clip's own transform."""
        return preprocessed(images.to(self.device), self.image_px, self._mean, self._std, self.interpolation)

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], any size -> (B, D) unit vectors."""
        return self.model.encode_image(self.preprocess(images), normalize=True)

    def logits(self, images: Tensor, text_features: Tensor) -> Tensor:
        """(B, L) scores of images (B, 3, H, W) in [0, 1] and texts (L, D): logit_scale * cosine, biased."""
        return self.biased(self.logit_scale * self.encode_images(images) @ text_features.T)

    def biased(self, scores: Tensor) -> Tensor:
        """Add the logit_bias to scaled cosines, which makes them the scores that the model was trained with.

        With sigmoids, p = sigmoid(score) is the probability that a label is shown, so the score is the logarithm of
        its odds. Then the softmax over labels is the probability of each if exactly one of them is shown: comparing
        labels means the same for both kinds of model, and the bias cancels.
        """
        return scores + self.logit_bias if self.logit_bias else scores


class OpenClip(NamedModel):
    """An open_clip model: `local-dir:FOLDER`, `hf-hub:OWNER/NAME`, or a name of open_clip's with the tag or the
    .safetensors file of its weights in `pretrained`.

    sha256: of the weights for which thresholds in params.yaml were chosen; others are refused. None = any.
    """

    takes_prefixes: ClassVar[bool] = True
    in_full: ClassVar[str] = f"its folder as {LOCAL}FOLDER, or a name of open_clip's with the file in `pretrained`"
    pretrained: Name | None = None
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", exclude_if=not_)

    @model_validator(mode="after")
    def _only_names_have_tags(self) -> Self:
        if self.pretrained and self.model.startswith((LOCAL, HUB)):
            raise ValueError(
                f"pretrained is {self.pretrained!r}, but {self.model} has its own weights: remove it, or give a name of"
                " open_clip's"
            )
        return self

    def load(self, device: torch.device | str) -> Clip:
        """Load the model.

        Raises:
            ValueError: see load_clip and check_sha256.
        """
        if self.sha256:
            path, _, _ = source(self.model, self.pretrained, self.revision)
            check_sha256(checksums.file_digest(path), self.sha256, self.title)
        return load_clip(self.model, device, self.pretrained, self.revision)

    @property
    def folder(self) -> Path | None:
        if self.model.startswith(LOCAL):
            return Path(self.model.removeprefix(LOCAL))
        return Path(self.pretrained).parent if self.pretrained and Path(self.pretrained).suffix else None

    @property
    def repository(self) -> str | None:
        if self.model.startswith(HUB):
            return self.model.removeprefix(HUB)
        return None if self.folder else hub_file(self.model, self.pretrained)[0] or None

    @property
    def needed_files(self) -> tuple[str, ...]:
        if self.model.startswith((LOCAL, HUB)):
            return (WEIGHTS,)
        file = str(self.pretrained) if self.folder else hub_file(self.model, self.pretrained)[1]
        return (Path(file).with_suffix(".safetensors").name if file else WEIGHTS,)

    def misfit(self, folder: Path) -> str:
        if not self.sha256:
            return ""
        try:
            check_sha256(checksums.stored_digest(folder / self.needed_files[0]), self.sha256, self.title)
        except ValueError as error:
            return str(error)
        return ""

    def name_problem(self) -> str:
        """Return the fault of a name of open_clip's, see name_problem; "" for a folder or a hub repository."""
        return "" if self.model.startswith((LOCAL, HUB)) else name_problem(self.model, self.pretrained)

    @property
    def title(self) -> str:
        place = f" ({self.repository})" if self.pretrained and self.repository else ""
        return f"{self.model}, {self.pretrained}{place}" if self.pretrained else self.model


def load_clip(
    model: str, device: torch.device | str, pretrained: str | None = None, revision: str | None = None
) -> Clip:
    """Load an open_clip model.

    model: `local-dir:FOLDER`, `hf-hub:OWNER/NAME`, or a name of open_clip's with the tag of its weights in
    `pretrained`. revision: a commit or tag of the hub repository; None = the latest.

    Raises:
        ValueError: unknown model, or weights that are missing, truncated, of another model, or not safetensors; a
            tokenizer of another model, or one that cannot pad.
    """
    import open_clip

    path, name, options = source(model, pretrained, revision)
    try:
        loaded = open_clip.create_model(name, **options)
        tokenizer = open_clip.get_tokenizer(name)
        check_positions(loaded, path)
        check_tokenizer(loaded, tokenizer)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"CLIP {model!r} cannot be loaded ({first_line(error)}); {CLIP_WEIGHTS_REMEDY}") from error
    return Clip(loaded, tokenizer, open_clip.get_model_config(name), device)


def load_tokenizer(model: OpenClip) -> Any:
    """Return a model's tokenizer of open_clip; its weights are not loaded.

    Raises:
        ValueError: unknown model, or weights that are missing or not safetensors.
    """
    import open_clip

    return open_clip.get_tokenizer(source(model.model, model.pretrained, model.revision)[1])


def preprocessed(images: Tensor, image_px: int, mean: Tensor, std: Tensor, mode: Interpolation = "bicubic") -> Tensor:
    """Squash images (B, 3, H, W) in [0, 1] to squares of `image_px` and normalise them; gradients flow to them.

    Deviation: an image that is not square is squashed, never cropped: its labels may be at the border.
    """
    size = (image_px, image_px)
    if images.shape[-2:] != size:
        images = F.interpolate(images, size=size, mode=mode, antialias=True).clamp(0, 1)
    return (images - mean.to(images.dtype)) / std.to(images.dtype)


def interpolation_of(preprocess_cfg: Mapping[str, Any]) -> Interpolation:
    """Return the way a model's images are resized: for open_clip everything but bilinear is bicubic."""
    return "bilinear" if preprocess_cfg.get("interpolation") == "bilinear" else "bicubic"


def normalise_scores(scores: Tensor) -> Tensor:
    """Training-free baseline: z-score each label over the images, then each image over the labels, if several.

    scores: (N, L); a column or row without spread becomes 0.
    """
    by_label = _standardise(scores, dim=0)
    return _standardise(by_label, dim=1) if scores.shape[1] > 1 else by_label


def _standardise(scores: Tensor, dim: int) -> Tensor:
    centred = scores - scores.mean(dim=dim, keepdim=True)
    spread = scores.std(dim=dim, keepdim=True, correction=0)
    return torch.where(spread > 0, centred / spread, torch.zeros_like(scores))
