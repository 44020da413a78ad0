"""Generated images that a classifier keeps and compares photos with, if its settings ask for it; val chooses.

Shapes: N images, K kept images, L labels, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tailorset.compute.memory import ShrinkingBatches
from tailorset.evaluation.selection import History, best_candidate
from tailorset.seeding import sample_seed
from tailorset.storage.image_set import ImageSet, Mixture
from tailorset.training.contract import Supported, Trainable
from tailorset.training.loop import TRAINING_MEMORY_REMEDY

AT_ONCE = 128  # images


def check_support(classifier: Trainable, val: ImageSet) -> None:
    """Check that photos choose the weight of kept images: generated images would always favour the largest.

    Raises:
        ValueError: images are to be kept, and val has generated images.
    """
    if isinstance(classifier, Supported) and classifier.cache.max_images and val.source != "real":
        raise ValueError(
            "train_classifier.cache needs annotated photos in val, which choose its alpha and beta: annotate some, or"
            " remove the key"
        )


def add_support(
    classifier: Trainable,
    data: ImageSet | Mixture,
    val: ImageSet,
    history: History,
    measure: Callable[[Tensor], dict[str, float]],
) -> History:
    """Let the kept candidate compare photos with the generated images of `data`, if that is better on val.

    history: all candidates so far. measure: from scores (N, L) on val to metrics.

    Returns:
        A candidate for each setting that was tried.
    """
    if not (isinstance(classifier, Supported) and classifier.cache.max_images):
        return []
    chosen = support_images(data, classifier.cache.max_images)
    parts = [chosen[start : start + AT_ONCE] for start in range(0, len(chosen), AT_ONCE)]
    features = torch.cat([_encoded(classifier, data.pixels(part))[1] for part in parts])
    classifier.cache.fill(features, data.targets[chosen].to(features.device))
    kept = best_candidate(history)
    trials = classifier.cache.trials(*_encoded(classifier, val.images))
    tried = [kept | setting | measure(logits.sigmoid().cpu()) for setting, logits in trials]
    classifier.cache.use(best_candidate([*history, *tried]))
    return tried


@torch.no_grad()
def _encoded(classifier: Supported, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, L) and features (N, D) of images (N, 3, P, P) uint8, on the classifier's device."""
    batches = ShrinkingBatches(AT_ONCE, "encoding images for the cache", TRAINING_MEMORY_REMEDY)
    parts = [
        found
        for _, found in batches.over(len(images), lambda part: classifier.without_cache(images[part].float() / 255))
    ]
    logits, features = zip(*parts, strict=True)
    return torch.cat(logits), torch.cat(features)


def support_images(data: ImageSet | Mixture, most: int) -> list[int]:
    """Return indices of generated images, each once, at most `most`: labels take turns, in a random order.

    The order depends on the ids of the images only.
    """
    images = [
        index
        for index, (source, copy) in enumerate(zip(data.sources, data.copies, strict=True))
        if source == "synthetic" and not copy
    ]
    images.sort(key=lambda index: sample_seed("support", data.ids[index]))
    shown = data.targets[images] == 1  # (N, L)
    turns = shown.cumsum(0).masked_fill(~shown, len(images) + 1).amin(1)  # of the label whose turn comes first
    return sorted(images[place] for place in torch.argsort(turns, stable=True)[:most].tolist())
