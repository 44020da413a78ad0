"""Images that thresholds are fitted on: those each group of labels is calibrated on, and those that set novelty.

Seen labels are calibrated on held-out annotated photos. Unseen labels take over that calibration, or are calibrated on
held-out generated images. Photos of val supply the scores of the target domain; their targets are dropped here.
Shapes: N images, L labels, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tailorset.records import NOT_ANNOTATED
from tailorset.seeding import sample_seed
from tailorset.storage.annotated import Annotated, Collection, Several
from tailorset.thresholds.fitting import Affine, fit_mixture, fit_platt, fit_seen, make_thresholds, transfer
from tailorset.thresholds.novelty import Novelty, fit_novelty
from tailorset.thresholds.rules import Thresholds
from tailorset.thresholds.settings import FitThresholds

NUM_FAMILIAR = 4000  # photos of a split whose features set the limit of novelty

Logits = Callable[[Annotated | Several], Tensor]  # images -> a classifier's logits, (N, L)
Features = Callable[[Annotated], Tensor]  # images -> a classifier's features, (N, D)


def fit_thresholds(
    collection: Collection, logits: Logits, held_out_share: float, settings: FitThresholds
) -> Thresholds:
    """Return the rules of all labels, in label-space order.

    held_out_share: of the images, which training left out.

    Raises:
        ValueError: a label is calibrated on photos, and there is no seen label; or a label has too few images.
    """
    label_space, max_risk = collection.label_space, settings.max_risk
    photos = logits(_without_targets(collection.photos("val")))
    of_seen, of_unseen = (photos[:, label_space.columns(names)] for names in (label_space.seen, label_space.unseen))
    seen = _on_photos(collection, logits, held_out_share, of_seen) if label_space.seen else None
    if settings.source == "synthetic":
        unseen = _on_generated(collection, logits, held_out_share, of_unseen)
    elif seen:
        unseen = transfer(seen, of_unseen, settings.share_pooling)
    else:
        raise ValueError("fit_thresholds.source is seen_photos, but no label is seen: set it to synthetic")
    rules = make_thresholds(label_space.unseen, unseen, of_unseen, None, max_risk).rules
    if seen:
        rules |= make_thresholds(label_space.seen, seen, of_seen, None, max_risk).rules
    return Thresholds({name: rules[name] for name in label_space.names}, collection.photo_px)


def fit_familiar(collection: Collection, features: Features) -> Novelty:
    """Fit to photos of train (of val, if no label is seen), with a limit by those of val.

    Of many photos, those with the lowest hashes are used.
    """
    val = features(_some(collection.photos("val")))
    known = features(_some(collection.photos("train"))) if collection.label_space.seen else val
    return fit_novelty(known, val)


def _without_targets(images: Annotated) -> Annotated:
    return replace(images, targets=torch.full_like(images.targets, NOT_ANNOTATED))


def _on_photos(collection: Collection, logits: Logits, held_out_share: float, photos: Tensor) -> Affine:
    """Calibrate the seen labels; photos: their columns of the unannotated photos."""
    labels = collection.label_space.seen
    columns = collection.label_space.columns(labels)
    _, held_out = collection.photos("train").split(held_out_share)
    return fit_seen(logits(held_out)[:, columns], held_out.targets[:, columns], photos, labels)


def _on_generated(collection: Collection, logits: Logits, held_out_share: float, photos: Tensor) -> Affine:
    """Calibrate the unseen labels on generated images; photos: their columns of the unannotated photos."""
    labels = collection.label_space.unseen
    columns = collection.label_space.columns(labels)
    _, held_out = collection.generated().split(held_out_share)
    return fit_mixture(fit_platt(logits(held_out)[:, columns], held_out.targets[:, columns], labels), photos)


def _some(photos: Annotated) -> Annotated:
    ids = photos.rows["image_id"]
    order = sorted(range(len(ids)), key=lambda index: sample_seed("novelty", ids.iloc[index]))
    chosen = sorted(order[:NUM_FAMILIAR])
    return replace(photos, rows=photos.rows.iloc[chosen], targets=photos.targets[chosen])
