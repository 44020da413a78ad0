"""Settings of stage generate_images."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal, Self

from pydantic import Field

from tailorset.records import LabelSpace
from tailorset.settings import Block

NO_QUOTA = 1.0e-9  # as a label's weakness: one image is enough


class Allocation(Block):
    """The allocator of a round's budget; the keys after `name` are used by `thompson` only."""

    name: Literal["uniform", "turns", "thompson"]
    round_images: int = Field(gt=0)  # the most candidates planned before their outcome is known
    gain: Literal["images", "labels"]
    max_share_per_prompt: float = Field(gt=0, le=1)  # of a label's quota
    max_share_per_pair: float = Field(gt=0, le=1)


class FromPhotos(Block):
    """Image-to-image: each image starts from a lent photo with noise, instead of from noise alone.

    near_duplicate: an image whose pixels correlate with its photo's by this much or more is a copy, and rejected.
    """

    strength: float = Field(gt=0, le=1)  # share of the sampling steps that are taken; 1 = next to nothing of the photo
    num_photos: int = Field(default=500, gt=0)
    near_duplicate: float = Field(default=0.95, gt=0, le=1)


class GenerateImages(Block):
    """Quotas of kept images, the budget of candidates, and how they are drawn."""

    images_per_label: int = Field(gt=0)
    max_images: int = Field(gt=0)
    negative_images: int = Field(default=0, ge=0)  # images of seen labels: negatives of the unseen ones
    allocation: Allocation
    weakness: dict[str, Annotated[float, Field(gt=0)]]  # label -> factor of its quota
    quota_threshold: float = Field(ge=0, le=1)
    num_inference_steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    shard_size: int = Field(gt=0)
    from_photos: FromPhotos | None = None  # None = from noise

    def for_added(self, label_space: LabelSpace, added: Collection[str]) -> Self:
        """Return settings by which only added labels have a quota; the rest are drawn next to them.

        The budget is the part of the whole that their pairs would have. They take turns: to `thompson`, the share of a
        pair with a label that has no quota would be a single image.
        """
        pairs = label_space.pairs()
        share = sum(not set(pair).isdisjoint(added) for pair in pairs) / len(pairs)
        budget = max(len(label_space.unseen), round(share * self.max_images))
        weakness = {name: self.weakness.get(name, 1.0) if name in added else NO_QUOTA for name in label_space.unseen}
        allocation = self.allocation.model_copy(update={"name": "turns"})
        return self.model_copy(update={"max_images": budget, "weakness": weakness, "allocation": allocation})
