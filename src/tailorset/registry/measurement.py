"""What was measured of a version, and on which photographs: all that two versions are compared by.

Letters: N images, L labels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from torch import Tensor

from tailorset.evaluation.metrics import average_precisions
from tailorset.evaluation.selection import MAPS
from tailorset.records import LabelSpace
from tailorset.storage.image_set import AnnotatedRows

VAL_SET = "val.set"  # tag of a version: its val photographs


@dataclass(frozen=True)
class Measurement:
    """test_set: see `photographs_hash`. maps, clip_maps: MAPS of the version and of raw CLIP in [0, 1]; empty where no
    test photograph shows an unseen label. average_precision: of each label; None where no test photograph shows it.
    val_set, val_maps, val_clip_maps: the same of the val photographs, by which versions are compared: test chooses
    nothing. Versions of before have no figures of val, and name no unseen labels.
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

    def save(self, path: Path) -> None:
        """Stable JSON."""
        path.write_text(json.dumps(asdict(self), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Measurement:
        """What `save` wrote.

        Raises:
            ValueError: the file is missing or damaged.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{path} holds no measurement ({error}): run `dvc repro register_model`") from error


def measure(scores: Tensor, clip_scores: Tensor | None, test: AnnotatedRows, label_space: LabelSpace) -> Measurement:
    """scores, clip_scores: (N, L) of the test photographs, as `evaluate` stores them; None = raw CLIP is not asked."""
    targets = test[1]
    ours = average_precisions(scores, targets)
    clip_maps = {} if clip_scores is None else mean_precisions(average_precisions(clip_scores, targets), label_space)
    by_label = dict(
        zip(label_space.names, (None if math.isnan(value) else value for value in ours.tolist()), strict=True)
    )
    test_set = photographs_hash(test, label_space.names)
    maps, unseen = mean_precisions(ours, label_space), list(label_space.unseen)
    return Measurement(test_set, len(targets), maps, clip_maps, by_label, unseen=unseen)


def with_val(
    measurement: Measurement, val: AnnotatedRows, label_space: LabelSpace, metrics: Mapping[str, float]
) -> Measurement:
    """Add what training measured on val: `val/...` of the classifier that it kept, `val/raw_clip/...` of raw CLIP.

    Without annotated unseen labels training chose on generated images: figures of these compare nothing.
    """
    unseen = label_space.columns(label_space.unseen)
    if not (val[1][:, unseen] == 1).any():
        return measurement
    ours, clip = ({key: metrics[f"{prefix}{key}"] for key in MAPS} for prefix in ("val/", "val/raw_clip/"))
    val_set = photographs_hash(val, label_space.names)
    return replace(measurement, val_set=val_set, val_maps=ours, val_clip_maps=clip)


def photographs_hash(test: AnnotatedRows, names: tuple[str, ...]) -> str:
    """A sha256 that is the same if and only if photographs, labels and annotations are; their order does not matter."""
    rows, targets = test
    shown = [sorted(zip(names, row, strict=True)) for row in targets.tolist()]
    return hashlib.sha256(json.dumps(sorted(zip(rows["sha256"], shown, strict=True))).encode()).hexdigest()


def val_tags(measurement: Measurement) -> dict[str, str]:
    """Tags of a version, by which versions are ranked; none where nothing was measured on val."""
    tags = {val_tag(key): f"{value:.6f}" for key, value in measurement.val_maps.items()}
    return tags | ({VAL_SET: measurement.val_set} if tags else {})


def val_tag(key: str) -> str:
    """Name of the tag that holds one of MAPS on val."""
    return f"val.{key.replace('/', '_')}"


def mean_precisions(precisions: Tensor, label_space: LabelSpace) -> dict[str, float]:
    """MAPS of (L,) average precisions; nothing if no photograph shows an unseen label."""
    zsl = precisions[label_space.columns(label_space.unseen)].nanmean()
    return {} if zsl.isnan() else dict(zip(MAPS, (float(zsl), float(precisions.nanmean())), strict=True))
