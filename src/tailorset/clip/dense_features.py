"""Features of every image position in the space CLIP shares with its text, and crops of images.

Shapes: B images of a batch, P positions, D joint width.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import VisionTransformer
    from timm.layers import AttentionPoolLatent

CROP_SHARE = 0.6  # side of a crop, as a share of the image's: neighbours overlap, so that few objects are cut in all
CROPS_PER_SIDE = 2
DenseEncoder = Callable[[Tensor], tuple[Tensor, Tensor]]


def dense_encoder(visual: nn.Module) -> DenseEncoder:
    """Return the function from normalised images to dense (B, P, D) and image features (B, D), both of unit norm.

    Raises:
        ValueError: a tower whose positions cannot be projected.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, ModifiedResNet):
        return lambda images: _resnet_features(visual, images)
    if isinstance(visual, VisionTransformer) and visual.attn_pool is None and visual.pool_type == "tok":
        return lambda images: _transformer_features(visual, images)
    if timm_transformer(visual):
        return lambda images: _timm_features(visual, images)
    raise ValueError(
        f"no dense features from a {type(visual).__name__}: choose an open_clip ModifiedResNet backbone, a "
        "VisionTransformer that pools by its class token, or a vision transformer of timm's (SigLIP 2, PE-Core)"
    )


def timm_transformer(visual: nn.Module) -> Any:
    """Return the transformer in a tower of timm's, or None if the tower is not one or pools by a layer of open_clip's.

    Tokens of its `num_prefix_tokens` come before the patches.
    """
    from open_clip.timm_model import TimmModel
    from timm.layers import AttentionPoolLatent
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    trunk: Any = visual.trunk if isinstance(visual, TimmModel) and not hasattr(visual.head, "pool") else None
    if not isinstance(trunk, Eva | VisionTransformer):
        return None
    return trunk if isinstance(trunk.attn_pool, AttentionPoolLatent | None) else None


def feature_map(visual: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the function from normalised images to the tower's last feature map (B, P, C), before its projection.

    Raises:
        ValueError: a tower whose positions cannot be projected.
    """
    from open_clip.modified_resnet import ModifiedResNet

    dense_encoder(visual)
    tower: Any = visual
    if isinstance(visual, ModifiedResNet):
        return lambda images: _positions(
            visual.forward_intermediates(images, indices=1, intermediates_only=True)["image_intermediates"][0]
        )
    if trunk := timm_transformer(visual):
        return lambda images: trunk.forward_features(images)[:, trunk.num_prefix_tokens :]
    return lambda images: _tokens(tower, images)[:, 1:]


def _resnet_features(visual: ModifiedResNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Project each position by the attention pool's value and output layers, as a pool of one position would."""
    output = visual.forward_intermediates(images, indices=1)
    assert isinstance(output["image_features"], Tensor)
    positions = _positions(output["image_intermediates"][0])
    dense = visual.attnpool.c_proj(visual.attnpool.v_proj(positions))
    return F.normalize(dense, dim=-1), F.normalize(output["image_features"], dim=-1)


def _positions(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, P, C)."""
    return maps.flatten(2).transpose(1, 2)


def _transformer_features(visual: VisionTransformer, images: Tensor) -> tuple[Tensor, Tensor]:
    """Project each patch token by the final norm and projection, like the class token."""
    features = F.normalize(_tokens(visual, images) @ visual.proj, dim=-1)
    return features[:, 1:], features[:, 0]


def _tokens(visual: VisionTransformer, images: Tensor) -> Tensor:
    """Return the class token and the patch tokens after the final norm, (B, 1 + P, C)."""
    tokens: Tensor = visual.ln_post(visual.transformer(visual._embeds(images)))
    return tokens


def _timm_features(visual: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Pool each patch token as the tower would if it were the only one, and project it like the pooled feature."""
    trunk = visual.trunk
    tokens = trunk.forward_features(images)  # (B, prefix + P, C), after the final norm
    alone = tokens[:, trunk.num_prefix_tokens :]
    if trunk.attn_pool is not None:
        alone = _pooled_alone(trunk.attn_pool, alone)
    dense = visual.head(trunk.head(trunk.head_drop(trunk.fc_norm(alone))))
    return F.normalize(dense, dim=-1), F.normalize(visual.head(trunk.forward_head(tokens)), dim=-1)


def _pooled_alone(pool: AttentionPoolLatent, tokens: Tensor) -> Tensor:
    """(B, P, C) -> (B, P, C): the softmax over one token is 1, so that its value is all that the pool attends to."""
    _, values = pool.kv(tokens).chunk(2, -1)
    pooled: Tensor = pool.proj(values)
    return pooled if pool.mlp is None else pooled + pool.mlp(pool.norm(pooled))


def grid_of(num_positions: int) -> tuple[int, int]:
    """Return the square grid of P positions."""
    side = round(num_positions**0.5)
    assert side * side == num_positions, f"{num_positions} positions are not a square grid"
    return side, side


def weighted_similarity(dense: Tensor, text: Tensor, spatial_scale: float) -> tuple[Tensor, Tensor]:
    """Return the similarity of images to positive and negative texts, positions weighted by the positive one.

    w_p = softmax_p(spatial_scale * cos(dense_p, positive));  s = sum_p w_p cos(dense_p, text)

    Args:
        dense: (B, P, D), unit norm.
        text: (2, L, D), positive then negative, unit norm.
    Returns:
        similarities (2, B, L) in [-1, 1] and the weights (B, L, P).
    """
    cosines = torch.einsum("bpd,nld->nblp", dense, text)
    weights = (spatial_scale * cosines[0]).softmax(-1)
    return (cosines * weights).sum(-1), weights


def mixed_similarity(dense: Tensor, pooled: Tensor, text: Tensor, spatial_scale: float, global_weight: float) -> Tensor:
    """Return the mean of `weighted_similarity` and of the cosine of the pooled feature, (2, B, L).

    Args:
        dense: (B, P, D), pooled: (B, D), text: (2, L, D), positive then negative; all of unit norm.
        global_weight: share of the pooled feature, in [0, 1].
    """
    dense_similarity, _ = weighted_similarity(dense, text, spatial_scale)
    global_similarity = torch.einsum("bd,nld->nbl", pooled, text)
    return global_weight * global_similarity + (1 - global_weight) * dense_similarity


def crops(images: Tensor) -> list[Tensor]:
    """Return the overlapping crops (B, 3, h, w) from all corners of images (B, 3, H, W)."""
    sides = [(length, round(CROP_SHARE * length)) for length in images.shape[-2:]]
    starts = [
        [round(i * (length - part) / (CROPS_PER_SIDE - 1)) for i in range(CROPS_PER_SIDE)] for length, part in sides
    ]
    (_, height), (_, width) = sides
    return [images[..., top : top + height, left : left + width] for top, left in product(*starts)]
