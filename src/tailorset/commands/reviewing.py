"""Generated images to review by hand, and the file of verdicts that the stage filter_images reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from tailorset.commands.findings import Finding
from tailorset.commands.shared_files import lock_of
from tailorset.messages import count
from tailorset.project.layout import FILTERED, REVIEW, SYNTHETIC
from tailorset.records import FILTERED_COLUMNS, LabelSpace
from tailorset.records.verdicts import STRUCK, ImageVerdict, current_verdicts, read_verdicts, verdict_lines
from tailorset.storage.files import atomic_output
from tailorset.storage.products import missing, read_table
from tailorset.storage.shards import load_content


class ImageDesk:
    """Generated images, those that the filter was least sure of first; an image without a label is struck out."""

    may_leave_open, nothing = False, "Struck out"

    def __init__(self, images: pd.DataFrame, synthetic: Path, review: Path, space: LabelSpace) -> None:
        """Read the verdicts.

        images: rows of the filtered manifest by image_id, with columns `prompt` and `requested`.

        Raises:
            ValueError: the file of verdicts is not valid, or names labels that are not unseen.
        """
        self.images, self.synthetic, self.review = images, synthetic, review
        self._verdicts, outdated = self._current(space)
        self.title, self.labels, self.ids = "Review generated images", space.unseen, list(images.index)
        gone = count(sum(outdated.values()), "verdict")
        rest = f"; {gone} on pictures that no longer exist" if any(outdated.values()) else ""
        self.help = f"Saved to {review}; `make run` applies it{rest}"

    def _current(self, space: LabelSpace) -> tuple[dict[str, ImageVerdict], dict[str, int]]:
        digests = {str(key): str(value) for key, value in self.images["sha256"].items()}
        return current_verdicts(self._read(), digests, space.unseen, self.review)

    def _read(self) -> dict[str, ImageVerdict]:
        return _stored(self.review)

    def saved(self) -> set[str]:
        """Return the images with a verdict."""
        return set(self._verdicts)

    def show(self, image_id: str) -> tuple[str, list[str], dict[str, int | None]]:
        """Return an image's id, its origin, and ticks: the verdict, else the filter's labels."""
        row, verdict = self.images.loc[image_id], self._verdicts.get(image_id)
        labels = verdict.labels if verdict else row["labels"]
        notes = [
            f"Requested: {', '.join(row['requested'])}",
            f"Prompt: {row['prompt']}",
            f"Filter: {row['reason']}, confidence {row['confidence']:.2f}",
        ]
        return image_id, notes, {label: int(label in labels) for label in self.labels}

    def png(self, image_id: str) -> bytes:
        """Return the picture.

        Raises:
            CorruptShardError: it is missing, or its bytes have changed.
        """
        row = self.images.loc[image_id]
        return load_content(self.synthetic, row["shard"], image_id, row["sha256"])

    def save(self, image_id: str, ticks: Mapping[str, int | None]) -> None:
        """Write the file of verdicts again, including what others saved to it in the meantime.

        Raises:
            ValueError: it is no longer valid.
        """
        labels = tuple(label for label in self.labels if ticks[label])
        verdict = ImageVerdict(sha256=self.images.loc[image_id, "sha256"], labels=labels)
        with lock_of(self.review):
            text = verdict_lines({**self._read(), image_id: verdict})
            with atomic_output(self.review) as partial:
                partial.write_text(text, encoding="utf-8")
        self._verdicts[image_id] = verdict


def _stored(review: Path) -> dict[str, ImageVerdict]:
    return read_verdicts(review) if review.exists() else {}


def image_desk(space: LabelSpace, rejected: bool) -> ImageDesk:
    """Return the images that the filter kept, or those that it rejected, and those with a verdict.

    Raises:
        ValueError: there are none, or the file of verdicts is not valid.
    """
    tables = [FILTERED / "manifest.parquet", SYNTHETIC / "manifest.parquet"]
    if lacking := [path for path in tables if not path.exists()]:
        raise ValueError(missing(lacking))
    drawn = pd.read_parquet(tables[1], columns=["image_id", "labels"]).rename(columns={"labels": "requested"})
    decided = read_table(tables[0], columns=FILTERED_COLUMNS)
    images = decided.merge(drawn, on="image_id", how="left").set_index("image_id")
    if images["requested"].isna().any():
        raise ValueError(f"{tables[0]} is not of the images in {tables[1]}: `make run` makes it again")
    chosen = ~images["kept"] & (images["reason"] != STRUCK) if rejected else images["kept"]
    rows = images[chosen | images.index.isin(list(_stored(REVIEW)))].sort_values(["confidence", "sha256"])
    if rows.empty:
        raise ValueError(f"the filter {'rejected' if rejected else 'kept'} none of the images in {tables[0]}")
    return ImageDesk(rows, SYNTHETIC, REVIEW, space)


def verdict_findings(space: LabelSpace) -> Iterator[Finding]:
    """Check the file of verdicts, and its labels if the images that are there were drawn for the labels of today."""
    try:
        stored = read_verdicts(REVIEW)
        manifest = SYNTHETIC / "manifest.parquet"
        if not stored or not manifest.exists():
            return
        images = pd.read_parquet(manifest, columns=["image_id", "sha256", "labels"])
        if {label for labels in images["labels"] for label in labels} <= set(space.unseen):  # else they are drawn anew
            digests = dict(zip(images["image_id"], images["sha256"], strict=True))
            current_verdicts(stored, digests, space.unseen, REVIEW)
    except ValueError as error:
        yield Finding("error", "review", str(error), "see docs/guides/reviewing.md")
