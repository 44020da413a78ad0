"""Scores of CLIP without training that look at parts of an image too: the whole, its best position, its best crop.

Small objects hardly change the feature of the whole image. Kin: SPARC (Miller et al. 2025), PIAA (2026).
Shapes: B images, L labels, D joint width, P positions.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from tailorset.clip.dense_features import dense_encoder
from tailorset.clip.model import Clip

CROP_SHARE = 0.6  # side of a crop, as a share of the image's: neighbours overlap, so that few objects are cut in all
CROPS_PER_SIDE = 2


def patch_logits(clip: Clip, images: Tensor, text_features: Tensor) -> Tensor:
    """Return (B, L) logit_scale * the mean of three cosines: the image's, the highest of a position's and of a crop's.

    images: (B, 3, H, W) in [0, 1], any size; text_features: (L, D) unit vectors.

    Raises:
        ValueError: the CLIP's visual tower has no features of positions, see dense_encoder.
    """
    dense, pooled = dense_encoder(clip.model.visual)(clip.preprocess(images))
    positions = (dense @ text_features.T).amax(1)
    best_crop = torch.stack([clip.encode_images(crop) @ text_features.T for crop in crops(images)]).amax(0)
    return clip.logit_scale * (pooled @ text_features.T + positions + best_crop) / 3


def crops(images: Tensor) -> list[Tensor]:
    """Return the overlapping crops (B, 3, h, w) from all corners of images (B, 3, H, W)."""
    sides = [(length, round(CROP_SHARE * length)) for length in images.shape[-2:]]
    starts = [
        [round(i * (length - part) / (CROPS_PER_SIDE - 1)) for i in range(CROPS_PER_SIDE)] for length, part in sides
    ]
    (_, height), (_, width) = sides
    return [images[..., top : top + height, left : left + width] for top, left in product(*starts)]
