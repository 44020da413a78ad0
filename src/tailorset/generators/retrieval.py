"""Real images in place of generated ones: for a prompt, one of the images of a folder that are nearest to it by a CLIP.

The control that tells whether generating is worth it: Geng et al. 2024, "The Unmet Promise of Synthetic Training
Images". Shapes: B images of a batch, N images of the folder, D width of CLIP's embedding, S numbers of a signature,
P x P pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from tailorset.clip.model import CLIP_MEMORY_REMEDY, Clip, OpenClip, load_tokenizer
from tailorset.compute.memory import ShrinkingBatches
from tailorset.generators import GeneratorConfig, Part
from tailorset.generators.parts.lora import check_zero_updates
from tailorset.images.codec import decode_image, file_content, square_pixels
from tailorset.messages import count, some
from tailorset.storage.held_out import are_copies, photo_signature
from tailorset.storage.paths import in_project
from tailorset.storage.photo_files import find_photos

log = logging.getLogger(__name__)

INDEX_BATCH = 64
SMALLEST_CROP = 0.8  # of the shorter side


class Config(OpenClip, GeneratorConfig):
    """A folder of real images, and the CLIP that finds them.

    images: folder of images without annotations, nested or not; those like a photo of val or test are left out.
    model: the CLIP; better not the discriminator, which filters what is found. nearest: images that a prompt chooses
    from.
    """

    retrieves_photos: ClassVar[bool] = True
    images: Annotated[Path, AfterValidator(in_project)]
    nearest: int = Field(default=100, ge=1)
    image_px: int = Field(gt=0)

    @property
    def untunable(self) -> str:
        return "generator retrieval cannot tune: it draws nothing"


@dataclass(frozen=True)
class Retrieval:
    """The images of a folder with their features (N, D), and signatures (N, S), which tell near-duplicates."""

    config: Config
    clip: Clip
    paths: Sequence[Path]
    features: Tensor
    signatures: np.ndarray

    @property
    def image_px(self) -> int:
        return self.config.image_px

    def sample(
        self,
        prompts: list[str],
        seeds: list[int],
        num_inference_steps: int,
        backprop_steps: int = 0,
        stop_after: int | None = None,
    ) -> Tensor:
        """(B, 3, P, P) float32 in [0, 1]; see `generators.Generator`. The seed chooses image, crop and side.

        Raises: ValueError for gradients, which real images do not have.
        """
        if backprop_steps:
            raise ValueError(f"{self.config.untunable}: set backprop_steps to 0")
        nearest = {prompt: self._nearest(prompt) for prompt in dict.fromkeys(prompts)}
        images = [self._image(nearest[prompt], seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        return torch.stack(images).to(self.clip.device)

    def load_adapter(self, folder: Path, part: Part = "text_encoders") -> None:
        """Accept a folder of zero updates, which changes nothing.

        Raises:
            ValueError: the folder holds an adapter, or is not a product of tuning.
        """
        check_zero_updates(folder, self.config.untunable)

    def without_copies(self, held_out: np.ndarray) -> Retrieval:
        """Return it without the images that are like a photo of val or test; see `generators.PhotoRetriever`.

        Raises:
            ValueError: no image would be left.
        """
        copies = are_copies(self.signatures, held_out)
        named = some([path.name for path, is_copy in zip(self.paths, copies, strict=True) if is_copy])
        if copies.all():
            raise ValueError(
                f"all of {count(len(copies), 'image')} in {self.config.images} are like photos of val or test"
                f" ({named}): set generator.images to a folder of other images"
            )
        if copies.any():
            log.warning(
                "%d of %d images in %s are like photos of val or test, and are left out: %s",
                copies.sum(),
                len(copies),
                self.config.images,
                named,
            )
        kept = np.flatnonzero(~copies).tolist()
        paths = [self.paths[number] for number in kept]
        return replace(self, paths=paths, features=self.features[kept], signatures=self.signatures[kept])

    def _nearest(self, prompt: str) -> list[int]:
        """Return the numbers of the images nearest to a prompt, which is encoded alone."""
        text = self.clip.encode_texts([prompt], "{}")[0]
        return (self.features @ text).topk(min(self.config.nearest, len(self.paths))).indices.tolist()

    def _image(self, candidates: Sequence[int], seed: int) -> Tensor:
        """(3, P, P) float32 in [0, 1]: a random square crop of one of the images, which differs from seed to seed."""
        generator = torch.Generator().manual_seed(seed)
        choice, side, left, top, mirrored = torch.rand(5, generator=generator).tolist()
        image = decode_image(file_content(self.paths[candidates[int(choice * len(candidates))]]))
        length = round(min(image.size) * (SMALLEST_CROP + (1 - SMALLEST_CROP) * side))
        x, y = round(left * (image.width - length)), round(top * (image.height - length))
        pixels = square_pixels(image.crop((x, y, x + length, y + length)), self.image_px)
        return (pixels.flip(-1) if mirrored < 0.5 else pixels).float() / 255


def build(config: Config, device: torch.device | str) -> Retrieval:
    """Encode every image of the folder once; those that cannot be read are left out with a warning.

    Raises:
        ValueError: the folder is missing or has no readable image, or the CLIP cannot be loaded.
    """
    found = find_photos(config.images, "generator.images")
    if note := found.unread_note():
        log.warning("generator.images: %s", note)
    files = sorted(found.photos.values())
    clip = config.load(device)
    damaged: dict[Path, str] = {}
    signatures: dict[Path, np.ndarray] = {}

    @torch.no_grad()
    def encode(paths: Sequence[Path]) -> Tensor:
        return clip.encode_images(torch.stack([_read(path, clip.image_px, damaged, signatures) for path in paths]))

    batches = ShrinkingBatches(INDEX_BATCH, f"looking at {config.images}", CLIP_MEMORY_REMEDY)
    features = batches.concatenated(encode, files)
    if damaged:
        reasons = some([f"{path.name} ({reason})" for path, reason in damaged.items()])
        log.warning("%d of %d images in %s cannot be read: %s", len(damaged), len(files), config.images, reasons)
        if len(damaged) == len(files):
            raise ValueError(f"no image in {config.images} can be read: {reasons}")
    readable = [number for number, path in enumerate(files) if path in signatures]
    paths = [files[number] for number in readable]
    return Retrieval(config, clip, paths, features[readable].to(device), np.stack([signatures[path] for path in paths]))


def build_tokenizers(config: Config) -> list[Any]:
    """Return the tokenizer of the CLIP, without loading its weights.

    Raises:
        ValueError: the model is unknown.
    """
    return [_TokenCounter(load_tokenizer(config))]


class _TokenCounter:
    """Wrap a tokenizer of open_clip in the part of transformers' interface that counts tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.model_max_length = tokenizer, tokenizer.context_length

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        if inner := getattr(self.tokenizer, "tokenizer", None):
            return {"input_ids": inner(text, **options)["input_ids"]}
        own = self.tokenizer
        return {"input_ids": [own.sot_token_id, *own.encode(text), own.eot_token_id]}


def _read(path: Path, image_px: int, damaged: dict[Path, str], signatures: dict[Path, np.ndarray]) -> Tensor:
    """Return an image, (3, P, P) in [0, 1], and note its signature; if it cannot be read, black, and note why."""
    try:
        image = decode_image(file_content(path))
        signatures[path] = photo_signature(image)
        return square_pixels(image, image_px).float() / 255
    except (OSError, ValueError) as error:
        damaged[path] = str(error)
        return torch.zeros(3, image_px, image_px)
