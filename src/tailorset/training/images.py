"""Images of stage train_classifier: those it learns from, those that choose the epoch, and a sheet that shows some."""

from __future__ import annotations

import logging
from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tailorset.images.sheets import contact_sheet
from tailorset.records import NOT_ANNOTATED, LabelSpace, Source
from tailorset.seeding import torch_generator
from tailorset.storage.annotated import Collection, joined
from tailorset.storage.image_set import ImageSet, Mixture, empty_pixels
from tailorset.training.contract import AugmentConfig
from tailorset.training.loop import augmented
from tailorset.training.settings import TrainClassifier

SOURCES: tuple[Source, ...] = ("real", "synthetic")
NUM_SHOWN = 24  # images of each kind on the sheet
log = logging.getLogger(__name__)


def training_sets(
    collection: Collection, image_px: int, train_on: Sequence[Source], held_out_share: float
) -> dict[Source, ImageSet]:
    """Load the sources that `train_on` names, without what is held out: photos of train; generated images.

    The latter are those that the filter kept, then the negatives, none of which is held out.
    """
    sets: dict[Source, ImageSet] = {}
    for source in train_on:
        annotated = collection.photos("train") if source == "real" else collection.generated()
        trained, _ = annotated.split(held_out_share)
        negatives = collection.negatives() if source == "synthetic" else ()
        sets[source] = joined([trained, *negatives]).load(image_px)
    return sets


def only_for(images: ImageSet, columns: Sequence[int]) -> ImageSet:
    """Return the images annotated for the labels of these columns only."""
    targets = torch.full_like(images.targets, NOT_ANNOTATED)
    targets[:, columns] = images.targets[:, columns]
    return replace(images, targets=targets)


def selection_set(collection: Collection, image_px: int, held_out_share: float, labels: Names[str] = ()) -> ImageSet:
    """Load the images that choose the epoch: photos of val or, if these show none of `labels`, held-out generated ones.

    labels: empty = the unseen ones, without which nothing can be measured.
    """
    val, space = collection.photos("val"), collection.label_space
    if (val.targets[:, space.columns([*labels] or space.unseen)] == 1).any():
        return val.load(image_px)
    whose = ", ".join(labels) or "an unseen label"
    log.warning("no val photo shows %s: the epoch is chosen on generated images that were held out", whose)
    _, held_out = collection.generated().split(held_out_share)
    return held_out.load(image_px)


def epoch_images(images: Mapping[Source, ImageSet], block: TrainClassifier, seed: int) -> Mixture:
    """Return the images of an epoch: photos once, generated images several times and in mosaics, as `block` says."""
    times = {"real": 1, "synthetic": block.synthetic_repeats}
    parts = [(part, times[name]) for name, part in images.items()]
    if "synthetic" in images and (number := round(block.mosaics * len(images["synthetic"]))):
        parts.append((mosaics(images["synthetic"], number, seed), 1))
    return Mixture(parts)


def mosaics(images: ImageSet, number: int, seed: int) -> ImageSet:
    """Compose mosaics of 2 x 2 images, each at half its size; all images are used about equally often.

    A mosaic shows what one of its images shows, lacks what all of them lack, and is not annotated for the rest.
    Source: Bochkovskiy et al. 2020 (YOLOv4), without its random crops, which could cut off a labelled object.
    """
    side, half = images.images.shape[-1], images.images.shape[-1] // 2
    spans = (slice(0, half), slice(half, side))
    pixels = empty_pixels((number, *images.images.shape[1:]))
    targets = torch.empty((number, images.targets.shape[1]), dtype=images.targets.dtype)
    order = torch.cat(
        [
            torch.randperm(len(images), generator=torch_generator(seed, "mosaics", turn))
            for turn in range(-(-4 * number // len(images)))
        ]
    )
    for index in range(number):
        four = order[index::number][:4]
        for place, image in zip(product(spans, spans), images.images[four], strict=True):
            size = tuple(span.stop - span.start for span in place)
            pixels[index][:, *place] = F.interpolate(image[None].float(), size=size, mode="area")[0].round().byte()
        shown, annotated = images.targets[four].amax(0), images.targets[four].amin(0)
        targets[index] = torch.where(shown == 1, shown, annotated)
    ids = tuple(f"mosaic-{index}" for index in range(number))
    return replace(images, ids=ids, images=pixels, targets=targets, is_composed=True)


def augmented_sheet(data: Mixture, config: AugmentConfig, label_space: LabelSpace, seed: int) -> Image.Image:
    """Draw some photos and some generated images as the first epoch sees them, with the labels they should teach."""
    chosen = []
    for source in SOURCES:
        indices = [index for index, other in enumerate(data.sources) if other == source]
        order = torch.randperm(len(indices), generator=torch_generator(seed, "sheet", source)).tolist()
        chosen += [indices[place] for place in order[:NUM_SHOWN]]
    images = (255 * augmented(data, chosen, config, seed, epoch=0)).round().byte().permute(0, 2, 3, 1)
    kinds = {"real": "photo", "synthetic": "generated"}
    captions = [
        f"{kinds[data.sources[index]]}\n{', '.join(_present(data.targets[index], label_space))}" for index in chosen
    ]
    title = "training images as augmented in epoch 1, and the labels they are to teach: all must be visible"
    return contact_sheet(list(images.numpy()), captions, columns=8, scale=1, title=title)


def _present(targets: Tensor, label_space: LabelSpace) -> list[str]:
    return [name for name, target in zip(label_space.names, targets.tolist(), strict=True) if target == 1]
