"""CLIP as a judge of images: a frozen open_clip model with a differentiable preprocessing.

Letters: B images, L labels, D embedding width, N images of a whole set.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tailorset import integrity
from tailorset.hub import HUB, LOCAL, NamedModel

TEXT_BATCH = 256
WEIGHTS = "open_clip_model.safetensors"
TOKENIZER_FILES = ("*token*", "vocab*", "merges.txt", "*.model")
REMEDY = "restore the file (`git checkout -- models/foundation`, `dvc checkout`) or name another model in params.yaml"
MEMORY_REMEDY = "name a smaller model under clip"


class Clip:
    """A frozen CLIP in evaluation mode; gradients flow to images, never to its weights.

    architecture: open_clip's description of the model, which can build it again.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[[list[str]], Tensor],
        architecture: dict[str, Any],
        device: torch.device | str,
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.tokenizer, self.architecture = tokenizer, architecture
        self.device = torch.device(device)
        self.logit_scale = float(model.logit_scale.exp())
        size = model.visual.image_size
        self.image_px: int = size[0] if isinstance(size, Sequence) else size
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
        """(B, 3, H, W) in [0, 1] -> normalised (B, 3, image_px, image_px), as open_clip's own transform, with gradient.

        Deviation: an image that is not square is squashed, never cropped: its labels may stand at the border.
        """
        images = images.to(self.device)
        size = (self.image_px, self.image_px)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return (images - self._mean.to(images.dtype)) / self._std.to(images.dtype)

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], any size -> (B, D) unit vectors."""
        return self.model.encode_image(self.preprocess(images), normalize=True)

    def logits(self, images: Tensor, text_features: Tensor) -> Tensor:
        """(B, L) logit_scale * cosine of images (B, 3, H, W) in [0, 1] and texts (L, D)."""
        return self.logit_scale * self.encode_images(images) @ text_features.T


class OpenClip(NamedModel):
    """An open_clip model: `local-dir:FOLDER`, `hf-hub:OWNER/NAME`, or a name of open_clip's with the tag or the
    .safetensors file of its weights in `pretrained`."""

    pretrained: str | None = None

    def load(self, device: torch.device | str) -> Clip:
        """Raises: ValueError, see load_clip."""
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
        return None if self.folder else _hub_file(self.model, self.pretrained)[0] or None

    @property
    def title(self) -> str:
        source = f" ({self.repository})" if self.pretrained and self.repository else ""
        return f"{self.model}, {self.pretrained}{source}" if self.pretrained else self.model


def load_clip(
    model: str, device: torch.device | str, pretrained: str | None = None, revision: str | None = None
) -> Clip:
    """Load an open_clip model.

    model: `local-dir:FOLDER`, `hf-hub:OWNER/NAME`, or a name of open_clip's with the tag of its weights in
    `pretrained`. revision: a commit or tag of the hub repository; None = the latest.

    Raises:
        ValueError: unknown model, or weights that are missing, truncated, of another model, or not safetensors.
    """
    import open_clip
    from safetensors import SafetensorError

    name, options = _source(model, pretrained, revision)
    try:
        loaded = open_clip.create_model(name, **options)
        tokenizer = open_clip.get_tokenizer(name)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"CLIP {model!r} cannot be loaded ({_first_line(error)}); {REMEDY}") from error
    return Clip(loaded, tokenizer, open_clip.get_model_config(name), device)


def normalise_scores(scores: Tensor) -> Tensor:
    """Training-free baseline: z-score each label over the images, then each image over the labels.

    scores: (N, L); a column or row without spread becomes 0.
    """
    return _standardise(_standardise(scores, dim=0), dim=1)


def _standardise(scores: Tensor, dim: int) -> Tensor:
    centred = scores - scores.mean(dim=dim, keepdim=True)
    spread = scores.std(dim=dim, keepdim=True, correction=0)
    return torch.where(spread > 0, centred / spread, torch.zeros_like(scores))


def _source(model: str, pretrained: str | None, revision: str | None) -> tuple[str, dict[str, Any]]:
    """Name and options for open_clip, whose weights are here.

    open_clip knows no revisions: a pinned repository is read as the folder of that commit, pinned weights of a tag as
    a file with the tag's preprocessing. Weights that are missing, where open_clip only warns, or that would be
    unpickled are refused.
    """
    from open_clip import get_pretrained_cfg

    path = _weights_file(model, pretrained, revision)
    if model.startswith(LOCAL):
        integrity.check(path.parent, REMEDY)
    if not path.is_file():
        raise ValueError(f"CLIP weights: {path} is missing; {REMEDY}")
    if path.suffix != ".safetensors":
        raise ValueError(f"CLIP weights: {path} is a pickle, which is never read; name a model that has safetensors")
    if not revision:
        return model, {"pretrained": pretrained}
    if model.startswith(HUB):
        return f"{LOCAL}{path.parent}", {}
    return model, {"pretrained": str(path), "force_preprocess_cfg": get_pretrained_cfg(model, pretrained or "")}


def _weights_file(model: str, pretrained: str | None, revision: str | None) -> Path:
    """The file to read; fetched first if it lies on a hub."""
    from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model
    from open_clip.pretrained import download_pretrained, download_pretrained_from_hf

    if model.startswith(LOCAL):
        return Path(model.removeprefix(LOCAL), WEIGHTS)
    if model.startswith(HUB):
        repository = model.removeprefix(HUB)
        if revision:
            return _fetched(model, lambda: _fetch_commit(repository, revision))
        return _fetched(model, lambda: download_pretrained_from_hf(repository))
    if problem := name_problem(model, pretrained):
        raise ValueError(problem)
    tags = list_pretrained_tags_by_model(model)
    if pretrained in tags and revision:
        repository, file = _hub_file(model, pretrained)
        return _fetched(model, lambda: download_pretrained_from_hf(repository, file or None, revision))
    if pretrained in tags:
        return _fetched(model, lambda: download_pretrained(get_pretrained_cfg(model, pretrained)))
    return Path(pretrained or "")


def name_problem(model: str, pretrained: str | None) -> str:
    """What is wrong with a name of open_clip's and the tag of its weights, "" if nothing is."""
    from open_clip import list_models, list_pretrained_tags_by_model

    if model not in list_models():
        nearest = ", ".join(difflib.get_close_matches(model, list_models(), n=5, cutoff=0.3))
        return f"CLIP {model!r} is unknown: give {LOCAL}FOLDER, {HUB}OWNER/NAME or one of open_clip's, e.g. {nearest}"
    tags = list_pretrained_tags_by_model(model)
    if pretrained in tags or (pretrained and Path(pretrained).suffix):
        return ""
    return f"CLIP {model}: pretrained={pretrained!r}; choose one of {tags} or a .safetensors file"


def _hub_file(model: str, pretrained: str | None) -> tuple[str, str]:
    """Repository and file of a tag's weights, each "" where open_clip leaves it open."""
    from open_clip import get_pretrained_cfg

    repository, _, file = get_pretrained_cfg(model, pretrained or "").get("hf_hub", "").rpartition("/")
    return repository, file


def _fetch_commit(repository: str, revision: str) -> str:
    """Weights, configuration and tokenizer of one commit, side by side; the weights' path."""
    from huggingface_hub import snapshot_download

    files = [WEIGHTS, "open_clip_config.json", *TOKENIZER_FILES]
    return str(Path(snapshot_download(repository, revision=revision, allow_patterns=files), WEIGHTS))


def _fetched(model: str, download: Callable[[], str]) -> Path:
    try:
        return Path(download())
    except (OSError, ValueError, RuntimeError) as error:
        reason = _first_line(error)
        raise ValueError(f"CLIP {model!r} cannot be fetched ({reason}); a download needs HF_HUB_OFFLINE=0") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
