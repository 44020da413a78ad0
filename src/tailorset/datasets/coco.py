"""MS-COCO, read from the official annotation files.

Source: Lin et al. 2014; the zero-shot protocol of Bansal et al. 2018 (48 seen and 17 unseen of the 80 objects).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tailorset.datasets.reading.categories import check_categories, labels_of
from tailorset.datasets.reading.changes import UserPath
from tailorset.datasets.reading.coco_instances import check_complete, read_instances
from tailorset.datasets.reading.photo_set import PhotoSet
from tailorset.datasets.reading.zero_shot import Listed, ProtocolConfig, PublishedCounts, zero_shot_set
from tailorset.records import LabelSpace
from tailorset.records.names import plain_path

OFFICIAL_COUNTS = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}
PUBLISHED = PublishedCounts("73,774", "6,608 by Bansal et al., 2,729 and 6,392 by RAM")  # of the 48/17 protocol on 2014


class Config(ProtocolConfig):
    """root: holds `annotations/instances_<part>.json` and the folders `train<year>` and `val<year>` of images.

    The official val part is the test part here; what else is taken: `ProtocolConfig`.
    """

    root: UserPath
    year: Literal[2014, 2017] = 2014

    @property
    def needed(self) -> tuple[Path, ...]:
        parts = [f"{part}{self.year}" for part in ("train", "val")]
        return (*(self.annotations(part) for part in parts), *(self.root / part for part in parts))

    def annotations(self, part: str) -> Path:
        """Return the official file of train2014, val2014 and so on."""
        return self.root / "annotations" / f"instances_{part}.json"


def build(config: Config, label_space: LabelSpace, seed: int) -> PhotoSet:
    """The three splits of the zero-shot protocol.

    Raises:
        ValueError: a file is missing, damaged or contradicts itself, a label is no COCO category, images are missing,
            or a split would be empty.
    """
    train, val = (read_part(config, part, label_space) for part in ("train", "val"))
    is_published = (len(label_space.seen), len(label_space.unseen), config.year) == (48, 17, 2014)
    published = PUBLISHED if is_published else None
    sizes = {f"train{config.year}": len(train), f"val{config.year}": len(val)}
    found = [f"{part}: {size:,} images, {_compared(part, size)}" for part, size in sizes.items()]
    return zero_shot_set("COCO", train, val, label_space, config, seed, published, found)


def read_part(config: Config, part: str, label_space: LabelSpace) -> dict[str, Listed]:
    """The images that an annotation file lists, by an id of ours."""
    name = f"{part}{config.year}"
    path = config.annotations(name)
    images, categories = found = read_instances(path)
    check_complete(path, found)
    check_categories(label_space, categories, label_space.names, path)
    label_of = labels_of(label_space, categories)
    files = {number: plain_path(image.file_name) for number, image in images.items()}
    if unsafe := [file for file in files.values() if Path(file).name != file]:
        raise ValueError(f"{path}: file name {unsafe[0]!r} leads out of {name}/: download the file again")
    return {
        f"coco-{number:012d}": Listed(
            config.root / name / files[number], frozenset(label_of[shown] for shown in image.shown if shown in label_of)
        )
        for number, image in images.items()
    }


def _compared(part: str, count: int) -> str:
    official = OFFICIAL_COUNTS[part]
    return "as in the official file" if count == official else f"NOT the {official:,} of the official file"
