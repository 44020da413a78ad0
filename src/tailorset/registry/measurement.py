"""Measurements of a version, and a hash of the photos they were made on: two versions are compared by these.

Shapes: N images, L labels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter
from torch import Tensor

from tailorset.evaluation.metrics import average_precisions
from tailorset.evaluation.results import MAPS
from tailorset.records import LabelSpace
from tailorset.storage.annotated import Annotated
from tailorset.storage.products import unusable

VAL_SET, VAL_UNSEEN = "val.set", "val.unseen"  # tags of a version: hashes of its val photos, and of its unseen labels


@dataclass(frozen=True)
class Measurement:
    """test_set: see `photos_hash`. maps, clip_maps: MAPS of the version and of raw CLIP in [0, 1]; empty if no test
    photo shows an unseen label. average_precision: of each label; None if no test photo shows it.
    val_set, val_maps, val_clip_maps: the same for the val photos, by which versions are compared: test chooses
    nothing. Older versions have no figures of val and no unseen labels.
    added: of each label that was added to another version, the average precision on val of the version and of raw CLIP;
    None if no val photo shows it. before: the same photos, measured without the added labels.
    """

    test_set: str
    num_photos: int
    maps: dict[str, float]
    clip_maps: dict[str, float]
    average_precision: dict[str, float | None]
    val_set: str = ""
    val_maps: dict[str, float] = field(default_factory=dict)
    val_clip_maps: dict[str, float] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    added: dict[str, list[float | None]] = field(default_factory=dict)
    before: Measurement | None = None

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    @property
    def labels_before(self) -> set[str]:
        """Labels without those that were added."""
        return set(self.average_precision) - set(self.added)

    def save(self, path: Path) -> None:
        """Write stable JSON."""
        content = {key: value for key, value in asdict(self).items() if value or key not in ("added", "before")}
        path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Measurement:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is missing or damaged.
        """
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(unusable(path, "a measurement", error, "register_model")) from error


def measure(scores: Tensor, clip_scores: Tensor | None, test: Annotated, label_space: LabelSpace) -> Measurement:
    """Measure scores (N, L) of the test photos, as `evaluate` stores them. clip_scores: None = without raw CLIP."""
    ours = average_precisions(scores, test.targets)
    clip_maps = (
        {} if clip_scores is None else mean_precisions(average_precisions(clip_scores, test.targets), label_space)
    )
    by_label = dict(zip(label_space.names, map(or_none, ours.tolist()), strict=True))
    test_set = photos_hash(test, label_space.names)
    maps, unseen = mean_precisions(ours, label_space), list(label_space.unseen)
    return Measurement(test_set, len(test.targets), maps, clip_maps, by_label, unseen=unseen)


def with_val(
    measurement: Measurement, val: Annotated, label_space: LabelSpace, metrics: Mapping[str, float]
) -> Measurement:
    """Add the mAPs on val: `val/...` of the classifier, `val/raw_clip/...` of raw CLIP, named as training's metrics.

    Without annotated unseen labels, training chose on generated images, and figures on these are not comparable.
    """
    unseen = label_space.columns(label_space.unseen)
    if not (val.targets[:, unseen] == 1).any():
        return measurement
    ours, clip = ({key: metrics[f"{prefix}{key}"] for key in MAPS} for prefix in ("val/", "val/raw_clip/"))
    val_set = photos_hash(val, label_space.names)
    return replace(measurement, val_set=val_set, val_maps=ours, val_clip_maps=clip)


def or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def photos_hash(photos: Annotated, names: tuple[str, ...]) -> str:
    """Return a sha256 that is the same if and only if photos, labels and annotations are, in any order."""
    shown = [sorted(zip(names, row, strict=True)) for row in photos.targets.tolist()]
    return hashlib.sha256(json.dumps(sorted(zip(photos.rows["sha256"], shown, strict=True))).encode()).hexdigest()


def val_tags(measurement: Measurement) -> dict[str, str]:
    """Return tags of a version, by which versions are ranked; none if nothing was measured on val."""
    tags = {val_tag(key): f"{value:.6f}" for key, value in measurement.val_maps.items()}
    unseen = hashlib.sha256(json.dumps(sorted(measurement.unseen)).encode()).hexdigest()
    return tags | ({VAL_SET: measurement.val_set, VAL_UNSEEN: unseen} if tags else {})


def val_tag(key: str) -> str:
    """Return the name of the tag with one of MAPS on val."""
    return f"val.{key.replace('/', '_')}"


def mean_precisions(precisions: Tensor, label_space: LabelSpace) -> dict[str, float]:
    """Return MAPS of (L,) average precisions; {} if no photo shows an unseen label."""
    zsl = precisions[label_space.columns(label_space.unseen)].nanmean()
    return {} if zsl.isnan() else dict(zip(MAPS, (float(zsl), float(precisions.nanmean())), strict=True))
