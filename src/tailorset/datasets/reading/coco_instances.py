"""Annotation files in the `instances` format of MS-COCO: which categories each image shows."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from tailorset.messages import some


class Image(NamedTuple):
    """One image of an annotation file; absent: categories that it does not show, None = all the others."""

    file_name: str
    shown: frozenset[str]
    absent: frozenset[str] | None


class Category(BaseModel):
    id: int
    name: str


class ListedImage(BaseModel):
    id: int
    file_name: str
    neg_category_ids: list[int] | None = None  # LVIS and our exports: absent categories; the rest is not known


class Annotation(BaseModel):
    id: int
    image_id: int
    category_id: int


class InstancesFile(BaseModel):
    """The part of an `instances` file that is read; its many other keys are ignored."""

    categories: list[Category]
    images: list[ListedImage]
    annotations: list[Annotation]


class Instances(NamedTuple):
    """An annotation file: its images by id, and its categories' names."""

    images: dict[int, Image]
    categories: tuple[str, ...]


def read_instances(path: Path) -> Instances:
    """The images of an `instances` file, each with the categories of all its annotations, crowds included.

    Raises:
        ValueError: the file is missing, cut off, no COCO file, lists an id twice, or annotates what it does not list.
    """
    try:
        content = InstancesFile.model_validate_json(path.read_bytes().removeprefix(BOM_UTF8))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): correct its path in prepare_dataset") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(
            f"{path} is cut off or no `instances` file of COCO ({where}: {first['msg']}):"
            " correct it or download it again"
        ) from error
    for kind, entries in (("images", content.images), ("categories", content.categories)):
        counts = Counter(entry.id for entry in entries)
        if repeated := [number for number, count in counts.items() if count > 1]:
            raise ValueError(f"{path}: {kind} lists the ids {some(repeated)} twice: correct it or download it again")
    names = {category.id: category.name for category in content.categories}
    shown: dict[int, set[str]] = {image.id: set() for image in content.images}
    for annotation in content.annotations:
        if annotation.image_id not in shown or annotation.category_id not in names:
            raise ValueError(
                f"{path}: annotation {annotation.id} is of image {annotation.image_id} and category"
                f" {annotation.category_id}, which are not both listed: correct it or download it again"
            )
        shown[annotation.image_id].add(names[annotation.category_id])
    images = {
        image.id: Image(image.file_name, frozenset(shown[image.id]), _absent(image, names)) for image in content.images
    }
    return Instances(images, tuple(names.values()))


def _absent(image: ListedImage, names: Mapping[int, str]) -> frozenset[str] | None:
    numbers = image.neg_category_ids
    return None if numbers is None else frozenset(names[number] for number in numbers if number in names)


def check_complete(path: Path, found: Instances) -> None:
    """Check that every image is annotated for every category.

    Raises:
        ValueError: names the first that is not.
    """
    for number, image in found.images.items():
        if image.absent is not None and (left := set(found.categories) - image.absent - image.shown):
            raise ValueError(
                f"{path}: image {number} is not annotated for {some(sorted(left))} (its neg_category_ids lack them)."
                " They would count as absent: give a file with complete annotations, or use the data set `folder`"
            )
