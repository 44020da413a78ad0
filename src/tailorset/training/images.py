"""Images of stage train_classifier: those it learns from, those that choose the epoch, and a sheet that shows some."""

from __future__ import annotations

import logging
from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from tailorset.images.sheets import contact_sheet
from tailorset.records import NOT_ANNOTATED, LabelSpace, Source
from tailorset.seeding import torch_generator
from tailorset.storage.annotated import Collection
from tailorset.storage.image_set import ImageSet, Mixture
from tailorset.training.contract import AugmentConfig
from tailorset.training.loop import augmented

SOURCES: tuple[Source, ...] = ("real", "synthetic")
NUM_SHOWN = 24  # images of each kind on the sheet
log = logging.getLogger(__name__)


def training_sets(
    collection: Collection, image_px: int, train_on: Sequence[Source], held_out_share: float
) -> dict[Source, ImageSet]:
    """Load the sources that `train_on` names: photos of train, kept generated images; without those held out."""
    sets: dict[Source, ImageSet] = {}
    for source in train_on:
        annotated = collection.photos("train") if source == "real" else collection.generated()
        trained, _ = annotated.split(held_out_share)
        sets[source] = trained.load(image_px)
    return sets


def only_for(images: ImageSet, columns: Sequence[int]) -> ImageSet:
    """Return the images annotated for the labels of these columns only."""
    targets = torch.full_like(images.targets, NOT_ANNOTATED)
    targets[:, columns] = images.targets[:, columns]
    return replace(images, targets=targets)


def selection_set(collection: Collection, image_px: int, held_out_share: float, labels: Names[str] = ()) -> ImageSet:
    """Load the images that choose the epoch: photos of val or, if these show nothing known, held-out generated ones.

    labels: those to choose for; empty = all.
    """
    val, space = collection.photos("val"), collection.label_space
    if (val.targets[:, space.columns([*labels] or space.names)] == 1).any():
        return val.load(image_px)
    whose = f" for {', '.join(labels)}" if labels else ""
    log.warning("no val photo is annotated%s: the epoch is chosen on generated images that were held out", whose)
    _, held_out = collection.generated().split(held_out_share)
    return held_out.load(image_px)


def epoch_images(images: Mapping[Source, ImageSet], synthetic_repeats: int) -> Mixture:
    """Return the images of an epoch: photos once, generated images `synthetic_repeats` times."""
    times = {"real": 1, "synthetic": synthetic_repeats}
    return Mixture([(part, times[name]) for name, part in images.items()])


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
