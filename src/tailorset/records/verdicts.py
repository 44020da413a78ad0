"""Verdicts of a person on generated images, bound to the pictures that they were given on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, RootModel, ValidationError

from tailorset.messages import invalid, unknown
from tailorset.records import Record
from tailorset.records.yaml_files import read_yaml

KEPT, RELABELLED = "kept", "relabelled in review"  # reasons of images that are kept
STRUCK, COPY = "struck out in review", "near-duplicate of its photo"  # reasons of rejections
HEADER = """\
# Verdicts of a person on generated images, written by `tailorset review` and read by the stage filter_images.
# image id: its sha256, and the labels that it shows; without labels it is struck out.
"""


class ImageVerdict(Record):
    """Labels that a person sees on an image, none = struck out; it holds for the picture of this sha256 only."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    labels: tuple[str, ...]


class _Verdicts(RootModel[dict[str, ImageVerdict]]):
    pass


def read_verdicts(path: Path) -> dict[str, ImageVerdict]:
    """Return the verdicts of a file by image id.

    Raises:
        ValueError: the file is missing, is not valid, or has an image twice.
    """
    content = read_yaml(
        path, "verdicts", "correct it; an empty file has none, and the last commit of it lacks later verdicts"
    )
    try:
        return _Verdicts.model_validate({} if content is None else content).root
    except ValidationError as error:
        raise ValueError(invalid(f"verdicts {path}", error)) from error


def verdict_lines(verdicts: Mapping[str, ImageVerdict]) -> str:
    """Return the text of a file of verdicts: a line per image, in the order of their ids."""
    lines = (
        f"{json.dumps(key)}: {json.dumps(one.model_dump(), ensure_ascii=False)}"
        for key, one in sorted(verdicts.items())
    )
    return HEADER + "".join(f"{line}\n" for line in lines)


def current_verdicts(
    verdicts: Mapping[str, ImageVerdict], digests: Mapping[str, str], unseen: Sequence[str], source: object
) -> tuple[dict[str, ImageVerdict], dict[str, int]]:
    """Return the verdicts on pictures that there are, and the number of the rest by reason: changed, gone.

    digests: image id -> sha256 of all images. Labels of verdicts on other pictures are not checked, as these may have
    been drawn for other labels.

    Raises:
        ValueError: a verdict names a label that is not unseen.
    """
    current, rest = {}, Counter({"changed": 0, "gone": 0})
    for image_id, verdict in verdicts.items():
        if digests.get(image_id) != verdict.sha256:
            rest["changed" if image_id in digests else "gone"] += 1
            continue
        if strange := [label for label in verdict.labels if label not in unseen]:
            raise ValueError(
                f"{source}, image {image_id}: {unknown('unseen label', strange[0], unseen)} Correct the line, or remove"
                " it and review the image again (tailorset review)"
            )
        current[image_id] = verdict
    return current, dict(rest)
