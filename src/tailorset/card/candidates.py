"""All candidates that were drawn, with the scores of discriminator and judge and the filter's decision.

Shapes: N candidates, U unseen labels, L all labels, D numbers of a signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from tailorset.clip.model import Clip
from tailorset.clip.scorer import requested_probabilities
from tailorset.clip.settings import ROLES
from tailorset.images.signatures import signature
from tailorset.records import LabelSpace, requested_mask
from tailorset.storage.shards import load_images

BATCH_SIZE = 128


class ImageDecision(Protocol):
    """A filter's decision on one image, as far as the card needs it."""

    @property
    def kept(self) -> bool: ...

    @property
    def confidence(self) -> float: ...


Decide = Callable[
    [Tensor, Sequence[Sequence[str]]], Sequence[ImageDecision]
]  # logits (N, U), N lists of requested labels


@dataclass(frozen=True)
class Candidates:
    """All candidates: each has one row in `table` and in every array.

    table: columns image_id, shard, sha256, prompt_id, requested, kept, labels, reason, confidence, judged (True if the
    judge would keep it by the filter's rule) and judge_confidence.
    probabilities: role -> (N, U), grouped, NaN for labels that were not requested.
    logits: role -> (N, L), against seen labels as well. signatures: (N, D).
    """

    table: pd.DataFrame
    label_space: LabelSpace
    probabilities: Mapping[str, np.ndarray]
    logits: Mapping[str, np.ndarray]
    signatures: np.ndarray

    @cached_property
    def mask(self) -> np.ndarray:
        """(N, L) bool: requested labels of each candidate."""
        return requested_mask(list(self.table["requested"]), self.label_space.names)

    def requested(self, label: str) -> np.ndarray:
        """(N,) bool: candidates for which a label was requested."""
        return self.mask[:, self.label_space.index(label)]

    def carriers(self, label: str) -> np.ndarray:
        """(N,) bool: kept candidates that train a label, also if it was found without a request."""
        return np.array([label in labels for labels in self.table["labels"]], dtype=bool) & self.kept

    def weakest(self, label: str) -> np.ndarray:
        """(N,) bool: candidates of which no requested label has a lower probability by the discriminator."""
        probabilities = self.probabilities["discriminator"]
        own = probabilities[:, self.label_space.unseen.index(label)]
        return own == np.nanmin(probabilities, axis=1)

    @cached_property
    def kept(self) -> np.ndarray:
        return self.table["kept"].to_numpy(bool)

    @cached_property
    def judged(self) -> np.ndarray:
        return self.table["judged"].to_numpy(bool)


def collect(
    synthetic: pd.DataFrame,
    filtered: pd.DataFrame,
    folder: Path,
    label_space: LabelSpace,
    decide: Decide,
    clips: Mapping[str, Clip],
    template: str,
) -> Candidates:
    """Put all candidates together; their images are read once, for the CLIPs and for signatures.

    synthetic, filtered: the manifests. folder: of the images. decide: the filter's rule, also applied to the judge's
    scores. clips: by role.
    """
    table = join_candidates(synthetic, filtered)
    decisions = decide(torch.from_numpy(np.stack(table["judge_logits"].to_list())), table["requested"].to_list())
    table["judged"] = [decision.kept for decision in decisions]
    table["judge_confidence"] = [decision.confidence for decision in decisions]
    texts = {role: clip.encode_texts(label_space.names, template) for role, clip in clips.items()}
    logits, signatures = look_at_images(table, folder, clips, texts)
    probabilities = stored_probabilities(synthetic, label_space.unseen)
    return Candidates(table, label_space, probabilities, logits, signatures)


def join_candidates(synthetic: pd.DataFrame, filtered: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `Candidates`, still without the judge's decisions.

    Raises:
        ValueError: the filtered manifest is about other images than the synthetic one.
    """
    fate = filtered[["image_id", "kept", "labels", "reason", "confidence"]]
    drawn = synthetic.drop(columns="labels").assign(requested=[tuple(labels) for labels in synthetic["labels"]])
    table = drawn.merge(fate, on="image_id", validate="1:1")
    if not len(table) == len(synthetic) == len(filtered):
        raise ValueError(
            f"{len(synthetic)} images were drawn and {len(filtered)} filtered, {len(table)} of them the same:"
            " run `dvc repro filter_images`"
        )
    return table


def stored_probabilities(synthetic: pd.DataFrame, unseen: Sequence[str]) -> dict[str, np.ndarray]:
    """Return role -> (N, U) grouped probabilities by the scores in the manifest."""
    rows = synthetic.to_dict("records")
    return {scorer: requested_probabilities(rows, unseen, scorer) for scorer in ROLES}


@torch.no_grad()
def look_at_images(
    rows: pd.DataFrame, folder: Path, clips: Mapping[str, Clip], texts: Mapping[str, Tensor]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Read the images once, batch by batch; return logits by role, (N, L) each, and signatures (N, D).

    texts: role -> (L, width) features of the labels' names.
    """
    logits: dict[str, list[np.ndarray]] = {scorer: [] for scorer in clips}
    signatures: list[np.ndarray] = []
    images = (image for _, image in load_images(rows, folder))
    while batch := list(islice(images, BATCH_SIZE)):
        signatures += map(signature, batch)
        pixels = _stacked(batch)
        for scorer, clip in clips.items():
            logits[scorer].append(clip.logits(pixels, texts[scorer]).float().cpu().numpy())
    return {scorer: np.concatenate(parts) for scorer, parts in logits.items()}, np.stack(signatures)


def _stacked(images: Iterable[Image.Image]) -> Tensor:
    """Return (B, 3, H, W) in [0, 1]; a generator draws images of one size."""
    arrays = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255
