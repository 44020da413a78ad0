"""Photos to annotate by hand, with guesses by CLIP, and the table of annotations that is filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tailorset.clip.model import Clip
from tailorset.commands.new import empty_table
from tailorset.commands.shared_files import lock_of
from tailorset.datasets.folder import Config
from tailorset.datasets.reading.annotations import Truth, annotation_table, read_truths
from tailorset.images.codec import decode_image, encode_png, file_content, shrunk, square_pixels
from tailorset.messages import count, some
from tailorset.project.params import Params
from tailorset.records import LabelSpace
from tailorset.storage.files import atomic_output
from tailorset.storage.photo_files import Found, find_photos

SHOWN_PX = 768  # shorter side of a photo on the page
MIN_GUESS = 0.1  # probability of a label, if exactly one is shown, from which it is ticked: that or twice chance

Guess = Callable[[Image.Image], Mapping[str, int]]


class PhotoDesk:
    """Rows of an annotation table, one photo each; a photo with an empty row is not annotated yet.

    guess: returns the labels that are ticked at first; none, unless it is set.
    """

    may_leave_open, nothing = True, "Shows none of the labels"

    def __init__(self, table: Path, folder: Path, found: Found, space: LabelSpace) -> None:
        """Read the table.

        Raises:
            ValueError: it cannot be read, or names unknown labels or photos.
        """
        self.table, self.folder, self.found, self.space = table, folder, found, space
        self._truths = self._read()
        self.guess: Guess = lambda _: dict.fromkeys(space.names, 0)
        self._guesses: dict[str, Mapping[str, int]] = {}
        self.title, self.help = "Annotate photos", f"Saved to {table}{self._without_row()}"
        self.labels, self.ids = space.names, list(self._truths)

    def _without_row(self) -> str:
        lacking = sorted(self.found.photos.keys() - self._truths.keys())
        if not lacking:
            return ""
        photos = f"{count(len(lacking), 'photo')} in {self.folder} without a row there: {some(lacking)}"
        return f"; {photos}. To annotate one, add a line with its name to the table and start again"

    def _read(self) -> dict[str, Truth]:
        return read_truths(self.table, self.folder, self.found, self.space)

    def saved(self) -> set[str]:
        """Return the photos with an annotation."""
        return {name for name, truth in self._truths.items() if truth}

    def show(self, image_id: str) -> tuple[str, list[str], dict[str, int | None]]:
        """Return a photo's name, notes and ticks: its annotations, else a guess.

        Raises:
            ValueError: it is not a readable image.
            OSError: it cannot be opened.
        """
        if image_id not in self._guesses:
            self._guesses[image_id] = self.guess(self._decoded(image_id))
        ticks = self._truths[image_id] or self._guesses[image_id]
        return image_id, [], {label: ticks.get(label) for label in self.labels}

    def png(self, image_id: str) -> bytes:
        """Return the photo, upright and not larger than needed."""
        return encode_png(np.asarray(shrunk(self._decoded(image_id), SHOWN_PX)))

    def save(self, image_id: str, ticks: Mapping[str, int | None]) -> None:
        """Write the table again, including what others saved to it in the meantime.

        Raises:
            ValueError: it can no longer be read, or its row of the photo is gone.
        """
        with lock_of(self.table):
            truths = self._read()
            if image_id not in truths:
                raise ValueError(f"{self.table} has no row of {image_id} any more: start `tailorset annotate` again")
            truths[image_id] = {label: value for label, value in ticks.items() if value is not None}
            with atomic_output(self.table) as partial:
                partial.write_text(annotation_table(truths, self.labels), encoding="utf-8", newline="")
        self._truths |= {name: truth for name, truth in truths.items() if name in self._truths}

    def _decoded(self, image_id: str) -> Image.Image:
        return decode_image(file_content(self.found.photos[image_id]))


class ClipGuess:
    """Labels that raw CLIP gives a photo; they are ticked for a person to correct."""

    def __init__(self, clip: Clip, labels: tuple[str, ...], template: str) -> None:
        self.clip, self.labels = clip, labels
        with torch.inference_mode():
            self.text_features = clip.encode_texts(labels, template)
        self.threshold = max(MIN_GUESS, 2 / len(labels))

    @torch.inference_mode()
    def __call__(self, image: Image.Image) -> dict[str, int]:
        pixels = square_pixels(image, self.clip.image_px)[None].float() / 255
        shares = self.clip.logits(pixels, self.text_features).softmax(dim=1)[0].tolist()
        return {label: int(share > self.threshold) for label, share in zip(self.labels, shares, strict=True)}


def photo_desk(params: Params, space: LabelSpace) -> PhotoDesk:
    """Return the photos of this project; the table is written if there is none yet.

    Raises:
        ValueError: the data set is not `folder` with a table, or photos or table cannot be read.
    """
    config = params.prepare_dataset.config
    if not isinstance(config, Config):
        raise ValueError(
            f"prepare_dataset.name is {params.prepare_dataset.name}, and only photos of the data set folder are"
            " annotated here: `tailorset new` writes the files for yours, then `tailorset use NAME`"
        )
    table = config.annotations
    if not isinstance(table, Path) or table.suffix.lower() != ".csv":
        raise ValueError(
            f"prepare_dataset.annotations is {table}: name a .csv file to save to, which may not exist yet"
        )
    found = find_photos(config.images)
    if not table.exists():
        with atomic_output(table) as partial:
            partial.write_text(empty_table(found.photos, space), encoding="utf-8", newline="")
    return PhotoDesk(table, config.images, found, space)
