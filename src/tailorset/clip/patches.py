"""Scores of CLIP, without training, by the whole image, its best position and its best crop.

Small objects hardly change the feature of the whole image. Kin: SPARC (Miller et al. 2025), PIAA (2026).
Shapes: B images, L labels, D joint width, P positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tailorset.clip.dense_features import crops, dense_encoder
from tailorset.clip.model import Clip


def patch_logits(clip: Clip, images: Tensor, text_features: Tensor) -> Tensor:
    """Return (B, L) scores by the mean of three cosines: the image's, the highest of a position's and of a crop's.

    images: (B, 3, H, W) in [0, 1], any size; text_features: (L, D) unit vectors.

    Raises:
        ValueError: the CLIP's visual tower has no features of positions, see dense_encoder.
    """
    dense, pooled = dense_encoder(clip.model.visual)(clip.preprocess(images))
    positions = (dense @ text_features.T).amax(1)
    best_crop = torch.stack([clip.encode_images(crop) @ text_features.T for crop in crops(images)]).amax(0)
    return clip.biased(clip.logit_scale * (pooled @ text_features.T + positions + best_crop) / 3)
